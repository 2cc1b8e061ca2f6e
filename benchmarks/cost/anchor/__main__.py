"""What does an anchor of L2-SP cost that is narrower or not on the device? Memory, and error.

    python -m benchmarks.cost.anchor [--tpu v5e:8x8] [--out benchmarks/results/cost.anchor.json]

`add_l2_sp` keeps a copy of the parameters. Here it is kept in bfloat16, or in the host's memory and
fetched in every step, see `benchmarks.cost.anchor.host` for how a user writes that. Claims:

- In bfloat16 the state holds half as much for the anchor. The pull's fixed point, the anchor,
  moves by 1.7e-3 of its norm (at most 2^-9), and `r` by as much in every step: at the start it is
  no longer 0. On the digits, over 20 seeds, no mean accuracy moves by more than half a point.
- In host memory the device's arguments hold no anchor, and every step moves it over once. The
  update itself needs it whole: for TPU it is a temporary of the update, so that memory is gained
  outside the update alone. The parameters trained are the same bit for bit, checked here on arrays
  of this backend.

Memory and bytes are those of one update with Adam, compiled for the 6.7 billion float32 parameters
of `benchmarks.cost.many_devices` over 64 devices, virtual ones of this CPU and, with `--tpu` (and libtpu
installed), those of a topology; in N, the bytes of one parameter tree on one device. It takes two
to five minutes on two CPU cores. The exit code is 1 if a claim fails.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.cost.__main__ import text_of
from benchmarks.cost.anchor import bytes as anchor_cost
from benchmarks.cost.anchor import error as anchor_error
from benchmarks.cost.many_devices.report import markdown
from benchmarks.cost.tables import Table
from benchmarks.harness.record import PACKAGES, environment

DEVICES = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, write the record, and return 1 if a claim fails."""
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    measured = measure(options.tpu, options.seeds)
    for table in measured:
        print(f"\n{table.title}\n{text_of(table.rows)}", flush=True)
    if options.out:
        write(options.out, options.tpu, measured)
    failures = [message for table in measured for message in table.failures]
    print("\n" + "\n".join(["Missed:", *failures] if failures else ["All asserted claims hold."]))
    return 1 if failures else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost.anchor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tpu", metavar="TOPOLOGY", help="compile for a TPU as well")
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="of the digits")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON and tables")
    return parser.parse_args(argv)


def measure(tpu: str | None, seeds: int) -> list[Table]:
    """Return the tables of cost and error."""
    costs = [anchor_cost.table("CPU", jax.devices())]
    if tpu:
        from jax.experimental import topologies

        devices = topologies.get_topology_desc(tpu, "tpu").devices
        costs.append(anchor_cost.table(f"TPU {tpu}", devices))
    return [*costs, anchor_cost.same_table(), *anchor_error.tables(seeds)]


def write(path: Path, tpu: str | None, measured: Sequence[Table]) -> None:
    """Write the record and its tables as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "environment": environment((*PACKAGES, "libtpu") if tpu else PACKAGES),
        "compiled for": f"CPU and TPU {tpu}" if tpu else "CPU",
        "tables": [table._asdict() for table in measured],
    }
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(found))


if __name__ == "__main__":
    # Before jax starts: the compiler for TPU would look for its machine on the network.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    sys.exit(main())
