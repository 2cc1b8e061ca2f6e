"""What does a whole training step cost? ResNet-50, with DTNH against without.

    python -m benchmarks.cost.training_step [--wall]

Claims, for `optax_dtnh.models.resnet50` in training mode on 4 images of 96 px, from images to new
parameters, with SGD with momentum, a mask that leaves the head out, and everything donated that is
updated:

- L2-SP + DTNH takes at most 1.01 times the flops of plain L2-SP and 1.01 times its peak of memory:
  the regularizer's gradient is formed in place, nothing is stored.
- KnowDist + DTNH takes at most 1.51 times the flops of one step with the sum of loss and distance,
  where the distance sees the last map, `stage4`, and both compute the teacher's.
- Its peak of memory is at most 1.2 times that of the sum: there is one more gradient.

Everything is compiled for CPU, nothing is run, except with `--wall`, which reports times and
asserts nothing. Memory is asserted on jax 0.12, for which its bars are set. It takes two minutes on
two CPU cores, one more with `--wall`.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks.cost import report, resnets
from benchmarks.cost.bars import exceeded, storage_is_known
from benchmarks.cost.clock import ROUNDS, columns, repeated
from benchmarks.cost.compiled import NOT_RUN, StepCost, step_cost
from benchmarks.cost.resnets import Make, Maps, abstract_of, states_of
from benchmarks.cost.training import Step, lowered, methods
from benchmarks.harness.command import Question, command, option
from benchmarks.harness.record import Results
from benchmarks.harness.tables import Table
from benchmarks.harness.timing import Run, paired_ratio
from optax_dtnh.models import backbone_mask, resnet50

BATCH, IMAGE = 4, 96
LAST: Maps = ("stage4",)

# Of each method, relative to the same one without DTNH.
WITHOUT = {"L2-SP + DTNH": "L2-SP", "KnowDist + DTNH": "KnowDist"}
BARS = {
    "L2-SP + DTNH": {"flops": 1.01, "peak": 1.01},
    "KnowDist + DTNH": {"flops": 1.51, "peak": 1.2},
}

Programs = dict[str, jax.stages.Compiled]


def measure(options: Namespace) -> Results:
    """Return the results: one table."""
    jax.config.update("jax_platforms", "cpu")
    return report.results([methods_table(resnet50, options.wall)])


def methods_table(make: Make, wall: bool) -> Table:
    """Measure the step of every method, with `wall` its time relative to the one without DTNH."""
    steps, programs = compiled(make, None if wall else NOT_RUN)
    costs = {name: step_cost(program) for name, program in programs.items()}
    runs = runs_of(make, steps, programs) if wall else None
    timed = f"; time: quartiles of {ROUNDS} paired runs" if wall else ""
    title = (
        f"a training step of ResNet-50, {BATCH} images of {IMAGE} px, KnowDist on {LAST[0]} with "
        f"the teacher in the step; ratios to the same method without DTNH{timed}"
    )
    rows = [row_of(name, costs, runs) for name in costs]
    return Table(title, rows, [message for name in WITHOUT for message in missed(name, costs)])


def compiled(make: Make, options: dict[str, Any] | None) -> tuple[dict[str, Step], Programs]:
    """Return the step of every method, the teacher of KnowDist in it, and the compiled ones."""
    model = abstract_of(make)
    losses = resnets.losses_with_teacher(model, LAST)
    steps, states = methods(losses, backbone_mask), states_of(model)
    data = (*resnets.images_of(BATCH, IMAGE), states)
    return steps, {k: lowered(step, *states, data).compile(options) for k, step in steps.items()}


def row_of(
    name: str, costs: Mapping[str, StepCost], runs: Mapping[str, Run] | None
) -> dict[str, Any]:
    """Return the row of a method."""
    cost, without = costs[name], WITHOUT.get(name)
    row = {
        "method": name,
        "flops": cost.flops / 1e9,
        "peak": cost.peak / 1e6,
        "temporary": cost.temporary / 1e6,
        "flops ratio": cost.flops / costs[without].flops if without else None,
        "peak ratio": cost.peak / costs[without].peak if without else None,
    }
    if runs is None:
        return row
    ratio = paired_ratio(runs[name], runs[without], ROUNDS) if without else None
    return row | columns(ratio, "time ratio")


def missed(name: str, costs: Mapping[str, StepCost]) -> list[str]:
    """Return a message for every bar that a method misses."""
    found, without = costs[name]._asdict(), costs[WITHOUT[name]]._asdict()
    bars = BARS[name] if storage_is_known() else {"flops": BARS[name]["flops"]}
    return exceeded(name, {k: found[k] / without[k] for k in bars}, bars)


def runs_of(make: Make, steps: Mapping[str, Step], programs: Programs) -> dict[str, Run]:
    """Return for every method a function that makes one more step, and its seconds."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, IMAGE, IMAGE, 3), np.float32)
    labels = rng.integers(0, resnets.CLASSES, BATCH, np.int32)
    source = states_of(make(classes=resnets.CLASSES, rngs=nnx.Rngs(0)))
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
