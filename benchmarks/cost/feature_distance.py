"""What does a feature distance cost? Flops of a gradient pair on a ResNet-18, against one gradient.

    python -m benchmarks.cost.feature_distance

Claims, for `optax_dtnh.models.resnet18` in training mode on 8 images of 96 px, the gradients of the
cross-entropy and of `feature_distance` from `value_and_grad_pair`, against one gradient of their
sum:

- at most 1.67 times the flops where the regularizer sees the last map, `stage4`, alone or with
  others: a second backward pass of the same length, no second forward pass;
- at most 1.55 times where the last map that it sees is `stage3`, 1.41 for `stage2` and 1.27 for
  `stage1`: the second backward pass begins there. The control, cotangents of which one is an array
  of zeros, begins at the loss and must miss these bars.

The teacher's forward pass, the same whether gradients are paired or summed, is left out.
Everything is compiled for CPU, nothing is run. It takes a minute on two CPU cores.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping

import jax

from benchmarks.cost import report, resnets
from benchmarks.cost.bars import exceeded
from benchmarks.cost.compiled import analysis_of, compiled
from benchmarks.cost.resnets import Make, Maps
from benchmarks.cost.training import of_pair, of_sum, zero_array
from benchmarks.harness.command import Question, command
from benchmarks.harness.record import Results
from benchmarks.harness.tables import Table
from optax_dtnh.models import resnet18

BATCH, IMAGE = 8, 96
BARS: dict[Maps, float] = {
    ("stage4",): 1.67,
    ("stage2", "stage4"): 1.67,
    ("stage3",): 1.55,
    ("stage2",): 1.41,
    ("stage1",): 1.27,
}


def measure(options: Namespace) -> Results:  # noqa: ARG001
    """Return the results: one table."""
    jax.config.update("jax_platforms", "cpu")
    return report.results([table(resnet18)])


def table(make: Make) -> Table:
    """Count the flops for every choice of maps."""
    rows, failures = [], []
    for maps, bar in BARS.items():
        row, name = ratios(make, maps), " and ".join(maps)
        rows.append({"maps": name, **row, "at most": bar})
        failures += missed(name, row, bar, late=maps[-1] == "stage4")
    title = f"flops relative to one gradient: ResNet-18, {BATCH} images of {IMAGE} px"
    return Table(title, rows, failures)


def ratios(make: Make, maps: Maps) -> dict[str, float]:
    """Return the numbers of a row, all but the first relative to one gradient."""
    losses, args = resnets.program(make, maps, BATCH, IMAGE)
    programs = (compiled(form(losses), *args) for form in (of_sum, of_pair, zero_array))
    one, pair, control = (analysis_of(program)["flops"] for program in programs)
    return {"one gradient, GFLOP": one / 1e9, "pair": pair / one, "zero array": control / one}


def missed(name: str, row: Mapping[str, float], bar: float, late: bool) -> list[str]:
    """Return a message if the pair misses its bar, or the control does not where it should."""
    pair, control = row["pair"], row["zero array"]
    failures = exceeded(name, {"flops": pair}, {"flops": bar})
    if not late and not control > bar:
        failures.append(f"{name}: the control, flops {control:.3f}, misses no bar")
    return failures


QUESTION = Question("cost.feature_distance", __doc__, measure, report.text, report.failures)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
