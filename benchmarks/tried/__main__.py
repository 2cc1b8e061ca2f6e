"""Which ideas would make a step cheaper? Each is measured against the library as it is.

    python -m benchmarks.tried [--wall] [--out benchmarks/results/tried.json]

Claims, with SGD with momentum after the update:

- One product `[r; m] m` per leaf, for both inner products, stores the stacked leaves: more bytes,
  at least 1 N of temporary, and gathers of leaves that are sharded on their last axis.
- One reduction with two results reads `m` once, 1 N less, but sums a leaf in one accumulator: an
  error above 1e-4, where the library's is below 1e-6.
- A contraction of all axes accesses no fewer bytes than the sum of a product.
- Joining small leaves, for the sums or for the whole update, makes fewer kernels, not fewer bytes,
  and gathers sharded leaves, of which the library gathers none.
- The Gram matrices of a dense layer's rows give both inner products exactly (1e-5), and take fewer
  flops than a pair of gradients at 8 rows of 512 units, more at 256 rows.

Nothing is asked of an accelerator: a kernel written in Pallas was not tried, for there was none to
run it on. The figures are XLA's own, for CPU; storage and kernels are asserted on jax 0.12. With
`--wall`, times relative to the library's are reported, from runs that alternate. It takes two
minutes on two CPU cores. The exit code is 1 if a claim fails.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks.cost.tables import Table
from benchmarks.parts.record import environment
from benchmarks.step_cost import text_of
from benchmarks.tried import report, tables
from benchmarks.tried.measures import DEVICES


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables and verdicts and return 1 if a claim fails."""
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    found: dict[str, Table] = {}
    for name, table in tables.measure(options.wall):
        print(f"{table.title}\n{text_of(table.rows)}\n", flush=True)
        found[name] = table
    print(report.verdicts(found))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {name: table._asdict() for name, table in found.items()}
        text = json.dumps({"environment": environment(), "tables": record}, indent=1)
        options.out.write_text(text + "\n")
        options.out.with_suffix(".md").write_text(report.markdown(found))
    failures = [message for table in found.values() for message in table.failures]
    print("\n".join(["Claims that fail:", *failures] if failures else ["All claims hold."]))
    return 1 if failures else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tried",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--wall", action="store_true", help="run updates and report their time")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON, and Markdown beside")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
