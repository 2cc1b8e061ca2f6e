"""What does a whole training step cost? ResNet-50 and EfficientNet-Lite0, with DTNH and without.

    python -m benchmarks.cost.training_step [--wall]

Claims, for networks of `optax_dtnh.models` in training mode, `resnet50` on 4 images of 96 px and
`EfficientNetLite0` on 16 of 64 and of 224 px, from images to new parameters, with SGD with
momentum, a mask that leaves the head out, and everything donated that is updated, and for DTNH with
one decision and per element:

- L2-SP + DTNH takes at most 1.01 times the flops of plain L2-SP and 1.01 times its peak of memory:
  the regularizer's gradient is formed in place, nothing is stored.
- KnowDist + DTNH takes at most 1.51 times the flops of one step with the sum of loss and distance,
  where the distance sees the last map, and both compute the teacher's.
- Its peak of memory is at most 1.2 times that of the sum: there is one more gradient.

Everything is compiled for CPU, nothing is run, except with `--wall`, which reports times of all but
the largest images and asserts nothing. Memory is asserted on jax 0.12, for which its bars are set.
It takes five minutes on two CPU cores, two more with `--wall`.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from benchmarks.cost import report, resnets
from benchmarks.cost.bars import exceeded, storage_is_known
from benchmarks.cost.clock import ROUNDS, columns, repeated
from benchmarks.cost.compiled import NOT_RUN, StepCost, step_cost
from benchmarks.cost.resnets import Make, abstract_of, states_of
from benchmarks.cost.training import Step, lowered, methods
from benchmarks.harness.command import Question, command, option
from benchmarks.harness.record import Results
from benchmarks.harness.tables import Table
from benchmarks.harness.timing import Run, paired_ratio
from optax_dtnh import per_element
from optax_dtnh.models import EfficientNetLite0, backbone_mask, resnet50


class Case(NamedTuple):
    """A network and its batch."""

    make: Make
    last: str  # map that KnowDist sees
    batch: int
    image: int
    timed: bool = True  # with `--wall`


CASES = {
    "ResNet-50, 4 of 96 px": Case(resnet50, "stage4", 4, 96),
    "EfficientNet-Lite0, 16 of 64 px": Case(EfficientNetLite0, "stage8", 16, 64),
    "EfficientNet-Lite0, 16 of 224 px": Case(EfficientNetLite0, "stage8", 16, 224, timed=False),
}
FINER = ", per element"
# Bars of each method, relative to the same one without DTNH.
BARS = {"L2-SP": {"flops": 1.01, "peak": 1.01}, "KnowDist": {"flops": 1.51, "peak": 1.2}}
WITHOUT = {f"{base} + DTNH{finer}": base for finer in ("", FINER) for base in BARS}

Programs = dict[str, jax.stages.Compiled]


def measure(options: Namespace) -> Results:
    """Return the results: one table."""
    jax.config.update("jax_platforms", "cpu")
    return report.results([methods_table(CASES, options.wall)])


def methods_table(cases: Mapping[str, Case], wall: bool) -> Table:
    """Measure the step of every method, with `wall` its time relative to the one without DTNH."""
    rows, failures = [], []
    for network, case in cases.items():
        timed = wall and case.timed
        steps, programs = compiled(case, None if timed else NOT_RUN)
        costs = {name: step_cost(program) for name, program in programs.items()}
        runs = runs_of(case, steps, programs) if timed else None
        rows += [{"network": network, **row_of(name, costs, runs)} for name in costs]
        failures += [f"{network}, {m}" for name in WITHOUT for m in missed(name, costs)]
    timed = f"; time: quartiles of {ROUNDS} paired runs" if wall else ""
    title = (
        "a training step, KnowDist on the last map with the teacher in the step; ratios to the "
        f"same method without DTNH{timed}"
    )
    return Table(title, rows, failures)


def compiled(case: Case, options: dict[str, Any] | None) -> tuple[dict[str, Step], Programs]:
    """Return the step of every method, the teacher of KnowDist in it, and the compiled ones."""
    model = abstract_of(case.make)
    losses, states = resnets.losses_with_teacher(model, (case.last,)), states_of(model)
    steps, finer = (methods(losses, backbone_mask, labels) for labels in (None, per_element))
    steps |= {f"{base} + DTNH{FINER}": finer[f"{base} + DTNH"] for base in BARS}
    data = (*resnets.images_of(case.batch, case.image), states)
    return steps, {k: lowered(step, *states, data).compile(options) for k, step in steps.items()}


def row_of(
    name: str, costs: Mapping[str, StepCost], runs: Mapping[str, Run] | None
) -> dict[str, Any]:
    """Return the row of a method."""
    cost, base = costs[name], WITHOUT.get(name)
    row = {
        "method": name,
        "flops": cost.flops / 1e9,
        "peak": cost.peak / 1e6,
        "temporary": cost.temporary / 1e6,
        "flops ratio": cost.flops / costs[base].flops if base else None,
        "peak ratio": cost.peak / costs[base].peak if base else None,
    }
    ratio = paired_ratio(runs[name], runs[base], ROUNDS) if runs and base else None
    return row | columns(ratio, "time ratio")


def missed(name: str, costs: Mapping[str, StepCost]) -> list[str]:
    """Return a message for every bar that a method misses."""
    base = WITHOUT[name]
    bars = BARS[base] if storage_is_known() else {"flops": BARS[base]["flops"]}
    found, without = costs[name]._asdict(), costs[base]._asdict()
    return exceeded(name, {k: found[k] / without[k] for k in bars}, bars)


def runs_of(case: Case, steps: Mapping[str, Step], programs: Programs) -> dict[str, Run]:
    """Return for every method a function that makes one more step, and its seconds."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((case.batch, case.image, case.image, 3), np.float32)
    labels = rng.integers(0, resnets.CLASSES, case.batch, np.int32)
    source = states_of(case.make(classes=resnets.CLASSES, rngs=nnx.Rngs(0)))
    runs = {}
    for name, step in steps.items():
        params, statistics = jax.tree.map(jax.numpy.copy, source)  # they are donated
        carry = params, statistics, step.transformation.init(params)
        runs[name] = repeated(programs[name], carry, (images, labels, source))
    return runs


OPTION = option("--wall", action="store_true", help="Run steps and report their times.")
QUESTION = Question(
    "cost.training_step", __doc__, measure, report.text, report.failures, None, OPTION
)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
