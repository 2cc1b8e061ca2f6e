"""What does an anchor of L2-SP cost that is narrower or not on the device? Memory, and error.

    python -m benchmarks.cost.anchor [--tpu v5e:8x8]

`add_l2_sp` keeps a copy of the parameters. Here it is kept in bfloat16, or in the host's memory and
fetched in every step, as docs/scaling.md shows. Claims:

- In bfloat16 the state holds half as much for the anchor. The pull's fixed point, the anchor,
  moves by 1.7e-3 of its norm (at most 2^-9), and `r` by as much in every step: at the start it is
  no longer 0. On the digits, over 20 seeds, no mean accuracy moves by more than half a point.
- In host memory the device's arguments hold no anchor, and every step moves it over once. The
  update itself needs it whole: for TPU it is a temporary of the update, so that memory is gained
  outside the update alone.

Memory and bytes are those of one update with Adam, compiled for the 6.7 billion float32 parameters
of `benchmarks.cost.many_devices` over 64 devices, virtual ones of this CPU and, with `--tpu` (and
libtpu installed), those of a topology; in N, the bytes of one parameter tree on one device. It
takes two to five minutes on two CPU cores.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator

import jax

from benchmarks.cost import report
from benchmarks.cost.anchor import bytes as anchor_bytes
from benchmarks.cost.anchor import error
from benchmarks.cost.many_devices.meshes import topology, use_virtual_devices
from benchmarks.harness.command import Question, command, option
from benchmarks.harness.record import PACKAGES, Results
from benchmarks.harness.tables import Table

SEEDS = 20  # of the digits


def measure(options: Namespace) -> Results:
    """Return the results: what is compiled for, and the tables."""
    use_virtual_devices()
    target = f"CPU and TPU {options.tpu}" if options.tpu else "CPU"
    return report.results(measured(options), **{"compiled for": target})


def measured(options: Namespace) -> Iterator[Table]:
    """Yield the tables of cost and error."""
    yield anchor_bytes.table("CPU", jax.devices())
    if options.tpu:
        yield anchor_bytes.table(f"TPU {options.tpu}", topology(options.tpu))
    yield from error.tables(SEEDS)


OPTION = option("--tpu", metavar="TOPOLOGY", help="Compile for a TPU as well.")
VERSIONS = (*PACKAGES, "libtpu")
QUESTION = Question(
    "cost.anchor", __doc__, measure, report.text, report.failures, None, OPTION, VERSIONS
)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
