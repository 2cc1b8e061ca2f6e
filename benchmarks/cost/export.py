"""Lowering for platforms that are not there, and what should not be in the lowered program."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.export

from benchmarks.cost.compiled import abstract_arguments, step_of
from benchmarks.cost.networks import losses_of, of_mlp, start
from benchmarks.cost.training import methods, run_of
from benchmarks.cost.trees import as_params, small_leaves
from benchmarks.cost.uses import OPTIONS, sgd

PLATFORMS = ("cpu", "cuda", "tpu")
CUSTOM_CALL = re.compile(r"stablehlo\.custom_call\s*@(\w+)")

Lowerable = tuple[Callable[..., Any], tuple[Any, ...]]


def steps() -> dict[str, Lowerable]:
    """Return every public use as a step with its abstract arguments, on a tree of four leaves."""
    params = as_params(small_leaves(4))
    uses = {name: use.then(sgd()) for name, use in OPTIONS.items()}
    found: dict[str, Lowerable] = {
        name: (step_of(use), abstract_arguments(use, params)) for name, use in uses.items()
    }
    network = of_mlp(units=16, layers=2, batch=4, classes=10)
    step, (weights, data) = methods(losses_of(network))["KnowDist + DTNH"], start(network)
    whole = run_of(step), (weights, {}, step.transformation.init(weights), *data)
    return found | {"value_and_grad_pair, dtnh": whole}


def export_problems(step: Callable[..., Any], args: tuple[Any, ...], platform: str) -> list[str]:
    """Return what is wrong with the step lowered for `platform`: callbacks, effects, float64."""
    try:
        exported = _exported(step, args, platform)
    except NotImplementedError as error:  # how jax.export answers to host callbacks
        return [f"cannot be exported: {error}"]
    text = exported.mlir_module()
    problems = [f"calls {name}" for name in sorted(set(CUSTOM_CALL.findall(text)))]
    if exported.ordered_effects or exported.unordered_effects:
        problems.append("has effects")
    # Without x64 there is no float64 to find. With it, constants and the scalars of optax's bias
    # corrections and schedules are float64, but float32 leaves should never become so.
    with jax.enable_x64(True):
        text_of_x64 = _exported(step, args, platform).mlir_module()
    if "f64>" in text or "xf64>" in text_of_x64:
        problems.append("computes in float64")
    return problems


def _exported(
    step: Callable[..., Any], args: tuple[Any, ...], platform: str
) -> jax.export.Exported:
    return jax.export.export(jax.jit(step), platforms=[platform])(*args)
