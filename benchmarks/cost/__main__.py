"""What does one update cost? Two passes over the gradients, and no memory.

    python -m benchmarks.cost [--wall] [--out benchmarks/results/cost.json]

Claims, with N the bytes of one float32 parameter tree, SGD with momentum after the transformation,
parameters and state donated:

- `dtnh` accesses at most 10.1 N and `add_l2_sp` 12.1 N (SGD alone: 6 N), both with temporary
  buffers under 1 % of N, on a ResNet-50-shaped tree of 161 leaves and for the rules `truncate`,
  `orthogonal`, `drop` and `plain`. `cosine` needs one more norm; it is printed.
- With Adam (alone: 10 N), `dtnh` before it accesses at most 15.1 N, around it 17.1 N, and
  `scale_by_adam_dtnh` 21.1 N; the latter two keep one tree from pass to pass. Its program grows
  linearly too, to at most 28,000 instructions for 200 small leaves (Adam alone: 9,400).
- Every form with every optimizer (SGD, momentum, Adam, AdamW, Lion, Adafactor, Muon) stays within
  its bar in `benchmarks.cost.bars`, and is put next to its floor: every array read once per pass
  and written once, where a pass ends at a number that depends on a whole leaf or tree. `dtnh` and
  `add_l2_sp` before SGD, momentum, Adam or AdamW access at most 1.7 times theirs, of which Adam
  alone has 1.43.
- 200 small leaves compile to at most 15,000 HLO instructions, and their number grows linearly.
  Bytes are printed there: XLA:CPU stores a product before reducing it if the leaf has a dimension
  above 32 and fewer than 4,096 elements, however the sum is spelled.
- The inner products that a rule does not use are gone from the program.
- `value_and_grad_pair` costs at most 1.67 times the flops of one gradient of the sum for a
  regularizer of the last feature map, 1.45 for one that sees the first half of the network.
- Every public form lowers for CPU, CUDA and TPU, without callbacks, effects or float64.

The figures are XLA's own, for CPU, and reproducible: everything is compiled, nothing is run, except
with `--wall`, which reports times relative to the same optimizer alone, from runs that alternate,
and asserts nothing. Where XLA stores an intermediate differs between its versions: bytes,
temporaries and instructions are asserted on jax 0.12, for which the bars are set, and printed
elsewhere; flops and lowering are asserted everywhere. Controls, the same update written less
carefully, must miss their bar. It takes four minutes on two CPU cores, two more with `--wall`. The
exit code is 1 if anything fails.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.cost import tables
from benchmarks.cost.bars import storage_is_known
from benchmarks.cost.forms import ADAM_BASELINE, ADAM_FORMS, BASELINE, FORMS
from benchmarks.cost.grid_table import grid_table
from benchmarks.cost.networks import NETWORKS
from benchmarks.harness.record import environment

SHOWN = ("SGD alone", "dtnh", "dtnh, plain", "add_l2_sp", "add_l2_sp, plain")
GROWING = {name: FORMS[name] for name in ("dtnh", "add_l2_sp")}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables and return 1 if a bar is missed."""
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    measured = []
    print(heading())
    for table in measure(options.wall):
        print(f"\n{table.title}\n{text_of(table.rows)}", flush=True)
        measured.append(table)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record(measured), indent=1) + "\n")
    failures = [message for table in measured for message in table.failures]
    print(
        "\n" + "\n".join(["Bars missed:", *failures] if failures else ["All asserted bars hold."])
    )
    return 1 if failures else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--wall", action="store_true", help="run updates and report their time")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every figure as JSON")
    return parser.parse_args(argv)


def heading() -> str:
    """Return the versions, the units, and what is asserted."""
    asserted = "" if storage_is_known() else "; bytes, memory and instructions: nothing asserted"
    return f"jax {jax.__version__}, {jax.default_backend()}; bytes and temporary in N{asserted}"


def measure(wall: bool) -> Iterator[tables.Table]:
    """Yield the tables one by one."""
    yield tables.resnet50_table(BASELINE | FORMS)
    yield tables.adam_table(ADAM_BASELINE | ADAM_FORMS)
    yield tables.small_leaves_table(BASELINE | GROWING)
    yield tables.controls_table()
    yield tables.flops_table(NETWORKS)
    yield tables.export_table()
    yield grid_table(wall)


def text_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return `rows` as aligned columns under their names."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def markdown(measured: dict[str, Any]) -> str:
    """Return the update's bytes and memory, from the record, as tables for `docs/cost.md`."""
    sgd, adam = measured["tables"][:2]
    shown = [row for row in sgd["rows"] if row["form"] in SHOWN]
    after_sgd, after_adam = "after it: SGD with momentum", "with Adam, after it the rate alone"
    return f"{_shown(after_sgd, shown)}\n\n{_shown(after_adam, adam['rows'])}"


def _shown(first: str, rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"| {first} | bytes accessed | temporary memory |", "|---|---|---|"]
    lines += [f"| {r['form']} | {r['bytes']:.1f} N | {r['temporary']:.2%} of N |" for r in rows]
    return "\n".join(lines)


def record(measured: Sequence[tables.Table]) -> dict[str, Any]:
    """Return what is written as JSON."""
    return {
        "environment": environment(),
        "backend": jax.default_backend(),
        "storage_asserted": storage_is_known(),
        "tables": [table._asdict() for table in measured],
    }


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < value < 1e-4 else f"{value:.4f}".rstrip("0").rstrip(".")
    words = {None: "-", True: "yes", False: "NO"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
