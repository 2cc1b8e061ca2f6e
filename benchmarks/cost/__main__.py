"""What does one update cost? Two passes over the gradients, and no memory.

    python -m benchmarks.cost [--wall]

Claims, with N the bytes of one float32 parameter tree of 161 leaves in the shapes of a ResNet-50,
parameters and state donated:

- Before SGD with momentum, `dtnh` accesses at most 10.1 N and `add_l2_sp` 12.1 N (SGD alone: 6 N),
  both with temporary buffers under 1 % of N.
- With Adam (alone: 10 N), `dtnh` before it accesses at most 15.1 N, around it 17.1 N, and
  `scale_by_adam_dtnh` 21.1 N; the latter two store one temporary tree.
- Every use with every optimizer (SGD, momentum, Adam, AdamW, Lion, Adafactor, Muon) stays within
  its bars in `benchmarks.cost.grid`.
- Decided per element, `dtnh` before SGD with momentum accesses at most 7.1 N and `add_l2_sp` 8.1 N,
  without a temporary buffer.
- 200 small leaves compile to at most 15,000 HLO instructions, with `scale_by_adam_dtnh` to 28,000
  (Adam alone: 9,400), and their number grows linearly.
- Every public use lowers for CPU, CUDA and TPU, without callbacks, effects or float64.

Everything is compiled for CPU, nothing is run, except with `--wall`, which reports times and
asserts nothing. Where XLA stores an intermediate differs between its versions: bytes, temporaries
and instructions are asserted on jax 0.12 alone. It takes four minutes on two CPU cores, two more
with `--wall`.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator

import jax

from benchmarks.cost import report, tables
from benchmarks.cost.bars import storage_is_known
from benchmarks.harness.command import Question, command, option
from benchmarks.harness.record import Results
from benchmarks.harness.tables import Table

UNITS = "Bytes and temporary in N, the bytes of one parameter tree."
UNASSERTED = "Of bytes, memory and instructions, no bar is asserted."


def measure(options: Namespace) -> Results:
    """Return the results: every table, and whether bars on storage are asserted."""
    jax.config.update("jax_platforms", "cpu")
    known = {"backend": jax.default_backend(), "storage_asserted": storage_is_known()}
    return report.results(measured(options.wall), **known)


def measured(wall: bool) -> Iterator[Table]:
    """Yield the tables one by one."""
    yield tables.small_leaves_table()
    yield tables.export_table()
    yield tables.grid_table(wall)


def text(results: Results) -> str:
    """Return the tables, their units, and what is asserted."""
    known = "" if results["storage_asserted"] else f" {UNASSERTED}"
    return f"{UNITS}{known} {report.text(results)}"


OPTION = option("--wall", action="store_true", help="Run updates and report their times.")
QUESTION = Question("cost", __doc__, measure, text, report.failures, options=OPTION)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
