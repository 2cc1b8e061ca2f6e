"""Which form of the method keeps its promise under momentum, Adam and small batches.

    python -m benchmarks.variants            # resumable: the same command goes on where it stopped
    python -m benchmarks.variants --quick    # a corner of the grid, under 3 minutes

The tasks are those of `benchmarks.digits` with 5, 10 and 20 images per class, with and without
40 % of their labels redrawn, trained with SGD with momentum or with Adam, on batches of 16 or on
all images.
"""

import time
from pathlib import Path
from typing import Any

from benchmarks.digits import ROTATED, SAME
from benchmarks.grid import analysis, cases, figure, runs, table
from benchmarks.grid.cases import SOURCES, Grid
from benchmarks.parts import options, record

QUESTION = "Which form of DTNH for which case?"
WEIGHTS = (0.1, 1.0, 10.0)
BOTH = ("SGD", "Adam")
WHOLE = cases.grid(BOTH, (16, None), SOURCES, (5, 10, 20), (0.0, 0.4), WEIGHTS, seeds=20)
QUICK = cases.grid(BOTH, (16,), (SAME, ROTATED), (5,), (0.0,), WEIGHTS, seeds=3)


def main(argv: list[str] | None = None) -> None:
    """Run the grid, or the rest of it, write the results and print them."""
    parser = options.OneLineParser(
        prog="python -m benchmarks.variants",
        description=__doc__,
        formatter_class=options.argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add: Any = parser.add_argument
    add("--quick", action="store_true", help="a corner of the grid, with 3 seeds")
    add("--out", type=Path, metavar="DIR", help="folder (default: out/variants or variants-quick)")
    chosen = parser.parse_args(argv)
    out = chosen.out or Path("out/variants-quick" if chosen.quick else "out/variants")
    options.make_folder(parser, out)
    options.make_folder(parser, out / "sources")
    start = time.perf_counter()
    try:
        run(QUICK if chosen.quick else WHOLE, out)
    except runs.OtherSettingsError as error:
        parser.error(str(error))
    print(f"\n{time.perf_counter() - start:.0f} s. Wrote variants.json, .md and .png to {out}")


def run(grid: Grid, out: Path) -> dict[str, Any]:
    """Run a grid, or the rest of it, in a folder that exists, and write and print what it says."""
    results = {"question": QUESTION, **analysis.with_intervals(runs.run(grid, out, "variants"))}
    record.write(out / "variants.json", results)
    text = table.markdown(results)
    (out / "variants.md").write_text(f"# {QUESTION}\n\n{text}\n")
    figure.draw(results, QUESTION).savefig(out / "variants.png", dpi=150)
    print(text)
    return results


if __name__ == "__main__":
    main()
