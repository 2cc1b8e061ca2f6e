"""What XLA says of a compiled program: bytes, memory, instructions, flops. Nothing is run."""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import optax

from benchmarks.cost.trees import size_in_bytes
from benchmarks.cost.uses import Use

INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = ", re.MULTILINE)
# For programs that are not run: without the expensive passes of LLVM, compilation takes half the
# time, and every count is the same, which a test asserts.
NOT_RUN = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Cost(NamedTuple):
    """The cost of one update, `bytes` and `temporary` in N, the bytes of one parameter tree."""

    bytes: float  # accessed, by XLA's model: every operand and result of every fusion, no cache
    temporary: float  # peak of the temporary buffers
    instructions: int  # HLO instructions, those inside fusions included
    reductions: int  # reductions to scalars, one per leaf and inner product
    seconds: float  # time of the compilation, not reproducible


class StepCost(NamedTuple):
    """The cost of a whole training step."""

    flops: float
    peak: float  # bytes of arguments, temporary buffers and outputs, what is updated in place once
    temporary: float  # bytes of the temporary buffers


def step_of(use: Use) -> Callable[..., Any]:
    """Return the training step's last part: from gradients to new parameters and state."""

    def step(params, state, g, r):
        updates, state = use.update(use.transformation, g, r, state, params)
        return optax.apply_updates(params, updates), state

    return step


def abstract_arguments(use: Use, params: Any) -> tuple[Any, ...]:
    """Return abstract arguments of `step_of(use)`: parameters, state and both gradients."""
    return params, jax.eval_shape(use.transformation.init, params), params, params


def compile_update(
    use: Use, params: Any, options: dict[str, Any] | None = None
) -> tuple[jax.stages.Compiled, Cost]:
    """Return one update of `params`, parameters and state donated, and what it costs."""
    start = time.perf_counter()
    step = jax.jit(step_of(use), donate_argnums=(0, 1))
    compiled = step.lower(*abstract_arguments(use, params)).compile(options)
    text, n = compiled.as_text() or "", size_in_bytes(params)
    return compiled, Cost(
        bytes=analysis_of(compiled)["bytes accessed"] / n,
        temporary=memory_of(compiled).temp_size_in_bytes / n,
        instructions=len(INSTRUCTION.findall(text)),
        reductions=text.count(" reduce("),
        seconds=time.perf_counter() - start,
    )


def update_cost(use: Use, params: Any, options: dict[str, Any] | None = None) -> Cost:
    """Return what one update of `params` costs."""
    return compile_update(use, params, options)[1]


def step_cost(compiled: jax.stages.Compiled) -> StepCost:
    """Return what a compiled training step costs."""
    memory = memory_of(compiled)
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    peak = held - memory.alias_size_in_bytes
    return StepCost(analysis_of(compiled)["flops"], peak, memory.temp_size_in_bytes)


def compiled(fun: Callable[..., Any], *args: Any) -> jax.stages.Compiled:
    """Return the program of `fun` for abstract arguments, which is not to be run."""
    return jax.jit(fun).lower(*args).compile(dict(NOT_RUN))


def memory_of(compiled: jax.stages.Compiled) -> Any:
    """Return XLA's sizes of a program's buffers."""
    return cast(Any, compiled.memory_analysis())


def analysis_of(compiled: jax.stages.Compiled) -> dict[str, float]:
    """Return XLA's counts of a program, empty where the backend has none."""
    return cast(Any, compiled.cost_analysis()) or {}
