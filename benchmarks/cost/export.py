"""Lowering for platforms that are not there, and what should not be in the lowered program."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import optax

from benchmarks.cost.compiled import abstract_arguments, step_of
from benchmarks.cost.forms import OPTIONS, WEIGHT, followed_by, sgd
from benchmarks.cost.networks import NETWORKS, loss_and_distance
from benchmarks.cost.trees import as_params, small_leaves
from optax_dtnh import dtnh, value_and_grad_pair

PLATFORMS = ("cpu", "cuda", "tpu")
CUSTOM_CALL = re.compile(r"stablehlo\.custom_call\s*@(\w+)")

Step = tuple[Callable[..., Any], tuple[Any, ...]]


def steps() -> dict[str, Step]:
    """Return every public form as a step with its abstract arguments, on a tree of four leaves."""
    params = as_params(small_leaves(4))
    forms = {name: followed_by(form, sgd()) for name, form in OPTIONS.items()}
    found: dict[str, Step] = {
        name: (step_of(form), abstract_arguments(form, params)) for name, form in forms.items()
    }
    return found | {"value_and_grad_pair, dtnh": whole_step()}


def whole_step() -> Step:
    """Return a training step of the CNN from images to parameters."""
    fun, (params, *data) = loss_and_distance(NETWORKS["residual CNN"], layer=1)
    tx = optax.chain(dtnh(WEIGHT), sgd())

    def step(params, state, *data):
        values, pair = value_and_grad_pair(fun)(params, *data)
        updates, state = tx.update(pair, state, params)
        return optax.apply_updates(params, updates), state, values

    return step, (params, jax.eval_shape(tx.init, params), *data)


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
