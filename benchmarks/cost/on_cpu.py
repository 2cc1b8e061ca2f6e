"""Where does a training step spend its time on a CPU? Its profile, and what was tried.

    python -m benchmarks.cost.on_cpu

A step of KnowDist on a ResNet-18 with 8 images of 96 px, batch normalization in training mode, the
teacher in the step. Measured, and nothing asserted:

- the operations of the step with one gradient of the sum and of that with both gradients, by kind:
  the share of the time of all threads, from jax's profiler;
- two other ways to both gradients: one backward pass of stacked cotangents, and with
  `jax.checkpoint`;
- parts spelled otherwise: the gradient of the maxima by a reduction over windows, and that of a
  convolution with the channels first;
- how long the first step of a ResNet-18 and of a ResNet-50 compiles, and its temporary memory.

It takes two minutes on two idle cores.
"""

import re
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.profiler import ProfileData

from benchmarks.cost import report
from benchmarks.cost.clock import ROUNDS, repeated
from benchmarks.cost.compiled import INSTRUCTION, step_cost
from benchmarks.cost.resnets import (
    CLASSES,
    Make,
    abstract_of,
    images_of,
    losses_with_teacher,
    states_of,
)
from benchmarks.cost.training import Fun, Losses, Step, lowered, of_pair, of_sum
from benchmarks.harness.command import Question, command
from benchmarks.harness.record import Results
from benchmarks.harness.tables import Table
from benchmarks.harness.timing import Run, in_turns, paired, paired_ratio, spread
from optax_dtnh import dtnh
from optax_dtnh.models import backbone_mask, resnet18, resnet50
from optax_dtnh.models._resnet import max_pool

BATCH, IMAGE, LAST = 8, 96, ("stage4",)
PROFILED = 5  # steps
# By what is in the fused computation of an operation, or in its name; the first that fits.
KINDS = {
    "convolutions": r"convolution\(",
    "kernels and maps transposed": r"transpose\(|^transpose|^copy",
    "reductions": r"reduce\(|reduce-window\(",
    "other": "",
}


def stacked(losses: Losses) -> Fun:
    """Return both gradients from one backward pass of stacked cotangents."""

    def evaluate(params, *args):
        values, pull, aux = jax.vjp(lambda p: losses(p, *args), params, has_aux=True)
        (both,) = jax.vmap(pull)((jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])))
        return (values, aux), tuple(jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1))

    return evaluate


BOTH = "both gradients"
FORM = dtnh(1.0, mask=backbone_mask)
WAYS: dict[str, tuple[Callable[[Losses], Fun], optax.GradientTransformation]] = {
    "one gradient of the sum": (of_sum, optax.identity()),
    BOTH: (of_pair, FORM),
    "both, stacked cotangents": (stacked, FORM),
    "both, `jax.checkpoint`": (lambda losses: of_pair(jax.checkpoint(losses)), FORM),
}


def step_of(model: Any, way: str) -> Step:
    """Return a step of SGD with momentum."""
    gradients, form = WAYS[way]
    losses = losses_with_teacher(model, LAST)
    return Step(gradients(losses), optax.chain(form, optax.sgd(1e-6, momentum=0.9)))


def programs() -> dict[str, tuple[jax.stages.Compiled, Run]]:
    """Return the compiled step of every way, and what runs it once more."""
    model, rng = resnet18(classes=CLASSES, rngs=nnx.Rngs(0)), np.random.default_rng(0)
    images = rng.standard_normal((BATCH, IMAGE, IMAGE, 3), np.float32)
    source = states_of(model)
    data, found = (jnp.asarray(images), jnp.asarray(rng.integers(CLASSES, size=BATCH)), source), {}
    for way in WAYS:
        step, (params, statistics) = step_of(model, way), jax.tree.map(jnp.copy, source)
        carry = params, statistics, step.transformation.init(params)
        program = lowered(step, *carry[:2], data, carry[2]).compile()
        found[way] = program, repeated(program, carry, data)
    return found


def shares(program: jax.stages.Compiled, run: Run) -> dict[str, str]:
    """Return the share of the time of all threads that each kind of operation takes."""
    text, spent = program.as_text() or "", dict.fromkeys(KINDS, 0.0)
    bodies = dict(re.findall(r"^%?([\w.\-]+) \(.*?\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    calls = dict(
        re.findall(r"^ *(?:ROOT )?%?([\w.\-]+) = .*calls=%?([\w.\-]+)", text, re.MULTILINE)
    )
    for name, nanoseconds in operations(run):
        body = f"{name}(\n{bodies.get(calls.get(name, ''), '')}"
        spent[next(k for k, pattern in KINDS.items() if re.search(pattern, body))] += nanoseconds
    return {kind: f"{time / sum(spent.values()):.0%}" for kind, time in spent.items()}


def operations(run: Run) -> list[tuple[str, float]]:
    """Return the operations of some steps and their nanoseconds, as jax's profiler has them."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(PROFILED):
                run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        lines = [line for plane in ProfileData.from_file(str(file)).planes for line in plane.lines]
    events = [(dict(event.stats), event.duration_ns) for line in lines for event in line.events]
    return [(str(stats["hlo_op"]), ns) for stats, ns in events if "hlo_op" in stats]


def parts() -> dict[str, tuple[Run, Run]]:
    """Return the gradient of a part as it is spelled otherwise, and as it is."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((BATCH, 48, 48, 64), np.float32), np.ones((BATCH, 24, 24, 64))
    edges: Any = ((1, 1), (1, 1))  # annotated as a string in Flax
    windows = partial(nnx.max_pool, window_shape=(3, 3), strides=(2, 2), padding=edges)
    maps = rng.standard_normal((BATCH, 12, 12, 128), np.float32)
    kernel = rng.standard_normal((3, 3, 128, 128), np.float32)

    def convolve(layout: str) -> Fun:
        numbers = layout, "HWIO", layout
        return lambda x, k: jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=numbers
        )

    def gradient(fun: Fun, cotangent: Any, *args: Any) -> Run:
        pulled = jax.jit(lambda d, *args: jax.vjp(fun, *args)[1](d))
        given = jax.tree.map(jnp.asarray, (np.float32(cotangent), *args))
        return repeated(lambda *given: (pulled(*given),), (), given)

    first = np.moveaxis(maps, 3, 1)
    return {
        "maxima, by a reduction over windows": (gradient(windows, y, x), gradient(max_pool, y, x)),
        "convolution, channels first": (
            gradient(convolve("NCHW"), first, first, kernel),
            gradient(convolve("NHWC"), maps, maps, kernel),
        ),
    }


def compilation(name: str, make: Make, images: tuple[int, int]) -> dict[str, Any]:
    """Return what the first step with both gradients takes before it runs."""
    model, start = abstract_of(make), time.perf_counter()
    states = states_of(model)
    traced = lowered(step_of(model, BOTH), *states, (*images_of(*images), states))
    seconds = [time.perf_counter() - start]
    program = traced.compile()
    seconds.append(time.perf_counter() - start - seconds[0])
    return {
        "network": name,
        "traced, s": f"{seconds[0]:.1f}",
        "compiled, s": f"{seconds[1]:.1f}",
        "instructions": len(INSTRUCTION.findall(program.as_text() or "")),
        "temporary memory, GB": f"{step_cost(program).temporary / 1e9:.2f}",
    }


def ways(made: Mapping[str, tuple[jax.stages.Compiled, Run]]) -> list[dict[str, Any]]:
    """Return times, flops and memory of every way, relative to both gradients as they are."""
    times = in_turns({way: run for way, (_, run) in made.items()}, ROUNDS)
    costs = {way: step_cost(program) for way, (program, _) in made.items()}
    return [
        {
            "way": way,
            "ms": f"{1e3 * spread(times[way]).median:.0f}",
            "time to both": str(paired(times, way, BOTH)),
            "flops to both": f"{cost.flops / costs[BOTH].flops:.2f}",
            "temporary memory, MB": f"{cost.temporary / 1e6:.0f}",
        }
        for way, cost in costs.items()
    ]


def measure(options: Namespace) -> Results:  # noqa: ARG001
    """Return the results: four tables."""
    jax.config.update("jax_platforms", "cpu")
    made, sizes = programs(), {"ResNet-18": resnet18, "ResNet-50": resnet50}
    others = [
        {"part": part, "time to as it is": str(paired_ratio(*both, rounds=ROUNDS))}
        for part, both in parts().items()
    ]
    tables = {
        f"A step of KnowDist on a ResNet-18, {BATCH} images of {IMAGE} px": ways(made),
        "Share of the time of all threads": [
            {"way": way} | shares(*made[way]) for way in list(WAYS)[:2]
        ],
        "Gradients of parts, spelled otherwise": others,
        "The first step, 64 images of 224 px": [
            compilation(name, make, (64, 224)) for name, make in sizes.items()
        ],
    }
    return report.results([Table(title, rows, []) for title, rows in tables.items()])


QUESTION = Question("cost.on_cpu", __doc__, measure, report.text)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
