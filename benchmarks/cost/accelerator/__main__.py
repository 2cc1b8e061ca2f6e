"""What does a step cost on a GPU or TPU? The update next to a copy, and whole training steps.

    python -m benchmarks.cost.accelerator

On the first device that jax finds; jax, optax and NumPy are all it needs, and the checkout, which
need not be installed. Goals, reported as reached or not:

- The update of 100 million parameters and more reaches 85 % of the bandwidth of a copy on the
  same device. Counted are the bytes that two passes cannot do without, N being those of one tree:
  8 N for `dtnh` on a pair with SGD and momentum (both gradients twice, parameters, momentum read;
  the last two written), 9 N for `add_l2_sp` (gradient, parameters, anchor twice; momentum; two
  written). Decisions of elements need one pass: 6 N for both.
- The update takes less than 1 % of a training step of ResNet-50, 64 images of 224 px in bfloat16.

Claim: what `jit` compiles equals what eager jax computes, and the formula in float64, to 1e-5. It
is checked first; if it fails, nothing is timed. Most of the time is compilation: after 6 minutes no
other network is begun, so that it ends within 8.

Without a GPU or TPU it says so in one line, and the exit code is 2. `--cpu` runs the same code on
the CPU, everything small, for tests: its times say nothing.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from benchmarks.cost import report
from benchmarks.cost.accelerator import equality, update
from benchmarks.cost.networks import NETWORKS, SMALL
from benchmarks.harness.command import Question, command, option
from benchmarks.harness.record import Results
from benchmarks.harness.tables import Table
from optax_dtnh.finetune.errors import UsageError

GOAL = 0.01  # of a step of ResNet-50
SECONDS = 0.3  # of one repeat
LIMIT = 360  # seconds, after which no other network is begun
MIB = 1024  # of the copy
PACKAGES = ("jax", "jaxlib", "optax", "numpy")

Row = Mapping[str, Any]


def measure(options: Namespace) -> Results:
    """Return the results: on a device, or with `--cpu` small."""
    if options.cpu and options.record:
        raise UsageError("`--cpu` should not be recorded: its times say nothing. Use `--out DIR`.")
    if options.cpu:
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() == "cpu":
        raise UsageError(
            f"jax {jax.__version__} finds no GPU or TPU here, only a CPU, so that nothing was "
            "measured. Install jax for the device, or try `--cpu`."
        )
    device = "CPU" if options.cpu else jax.devices()[0].device_kind
    return report.results(measured(options.cpu), **{"cpu": options.cpu, "compiled for": device})


def measured(small: bool) -> Iterator[Table]:
    """Yield the tables: whether the device is right and, if it is, its times."""
    until = time.monotonic() + LIMIT
    yield (checked := equality.table())
    if checked.failures:
        return
    mib, seconds = (4, 0.0) if small else (MIB, SECONDS)
    trees = update.SMALL if small else update.TREES
    bandwidth = update.copy_bandwidth(mib, seconds)
    yield (updates := update.table(trees, bandwidth, seconds))
    networks = SMALL if small else NETWORKS
    yield (steps := update.steps_table(networks, seconds, until))
    if not small:
        yield shares(updates.rows, steps.rows)


def shares(updates: Sequence[Row], steps: Sequence[Row]) -> Table:
    """Return what the update of ResNet-50 takes of its step, whole and beyond SGD's own."""
    ms = {row["update"]: row["ms"] for row in updates if row["tree"] == "ResNet-50"}
    step = next(row["ms"] for row in steps if row["network"] == "ResNet-50")
    rows = [
        {
            "update": name,
            "of a step": ms[name] / step,
            "beyond SGD": (ms[name] - ms["SGD alone"]) / step,
            "note": f"goal of {GOAL:.0%} {'reached' if ms[name] < GOAL * step else 'NOT reached'}",
        }
        for name in ("dtnh", "add_l2_sp")
    ]
    return Table("the update of ResNet-50 as a share of its step", rows, [])


OPTION = option(
    "--cpu", action="store_true", help="Run everything small on the CPU: its times say nothing."
)
QUESTION = Question(
    "cost.accelerator", __doc__, measure, report.text, report.failures, None, OPTION, PACKAGES
)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
