"""What XLA says about a compiled update: bytes, memory, instructions, flops. Nothing is run."""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import optax

from benchmarks.cost.forms import Form
from benchmarks.cost.trees import size_in_bytes

INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = ", re.MULTILINE)
# For code that is not run: generating it well takes as long again, and what is counted comes first.
NOT_RUN = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Cost(NamedTuple):
    """The cost of one update, `bytes` and `temporary` in N, the bytes of one parameter tree.

    Attributes:
      bytes: Bytes accessed, by XLA's model: every operand and result of every fusion, no cache.
      temporary: Peak of the temporary buffers.
      instructions: HLO instructions, those inside fusions included.
      reductions: Reductions to scalars, one per leaf and inner product.
      seconds: Time of the compilation, not reproducible.
    """

    bytes: float
    temporary: float
    instructions: int
    reductions: int
    seconds: float


def step_of(form: Form) -> Callable[..., Any]:
    """Return the training step's last part: from gradients to new parameters and state."""

    def step(params, state, g, r):
        updates, state = form.update(form.transformation, g, r, state, params)
        return optax.apply_updates(params, updates), state

    return step


def abstract_arguments(form: Form, params: Any) -> tuple[Any, ...]:
    """Return abstract arguments of `step_of(form)`: parameters, state and both gradients."""
    return params, jax.eval_shape(form.transformation.init, params), params, params


def compile_step(form: Form, params: Any) -> jax.stages.Compiled:
    """Return the compiled step, with parameters and state donated."""
    step = jax.jit(step_of(form), donate_argnums=(0, 1))
    return step.lower(*abstract_arguments(form, params)).compile()


def cost_of(compiled: jax.stages.Compiled, n: int, seconds: float = 0.0) -> Cost:
    """Return what a compiled update costs, with `n` the bytes of one parameter tree."""
    text, memory = compiled.as_text() or "", cast(Any, compiled.memory_analysis())
    return Cost(
        bytes=_analysis(compiled)["bytes accessed"] / n,
        temporary=memory.temp_size_in_bytes / n,
        instructions=len(INSTRUCTION.findall(text)),
        reductions=text.count(" reduce("),
        seconds=seconds,
    )


def update_cost(form: Form, params: Any) -> Cost:
    """Return what one update of `params` costs."""
    start = time.perf_counter()
    compiled = compile_step(form, params)
    return cost_of(compiled, size_in_bytes(params), time.perf_counter() - start)


def flops(fun: Callable[..., Any], *args: Any) -> float:
    """Return the floating-point operations of `fun`, compiled for abstract `args`."""
    return _analysis(jax.jit(fun).lower(*args).compile(dict(NOT_RUN)))["flops"]


def _analysis(compiled: jax.stages.Compiled) -> dict[str, float]:
    return cast(Any, compiled.cost_analysis())
