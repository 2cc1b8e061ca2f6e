"""Which form of the method keeps its promise under momentum, Adam and small batches.

    python -m benchmarks.digits.variants            # resumable: the same command goes on where it stopped
    python -m benchmarks.digits.variants --quick    # a corner of the grid, under 3 minutes

The tasks are those of `benchmarks.digits` with 5, 10 and 20 images per class, with and without
40 % of their labels redrawn, trained with SGD with momentum or with Adam, on batches of 16 or on
all images. 700 test images would leave too few of some class for 20, so it is 600 here.

Expected, in points of test accuracy against the plain regularizer, means over tasks and weights
with 95 % intervals over 20 seeds (all numbers: benchmarks/results/digits.variants.json; tables:
variants.md beside it):

- Batches of 16, L2-SP: with this batch's gradient as the reference DTNH is nearly inert, +0.3 +-
  0.1 with SGD, +0.5 +- 0.1 with Adam; with `optax.ema(0.99)` it is +5.6 +- 0.4 and +6.9 +- 0.3.
- Batches of 16, KnowDist, which shares the batch: DTNH +1.6 +- 0.2 and +2.4 +- 0.2, with
  `optax.ema(0.9)` +2.3 +- 0.2 and +3.0 +- 0.3, separate momentum with SGD +2.6 +- 0.3.
- Decoupled, the regularizer does as well without DTNH: with Adam it hardly acts at these weights,
  both are nearly fine-tuning. In Adam's metric L2-SP diverges for some seed in 88 of 108 cells.
- No form is never worse than the better of fine-tuning and the plain regularizer: in 121 of 432
  cells all of them are, beyond chance, by most with a good source and noisy target labels or a
  source that does not suit and L2-SP at weight 10.
"""

import time
from pathlib import Path
from typing import Any

from benchmarks.digits.__main__ import ROTATED, SAME
from benchmarks.digits.variants import analysis, cases, figure, runs, table
from benchmarks.digits.variants.cases import SOURCES, Grid
from benchmarks.digits.variants.forms import FORMS
from benchmarks.harness import options, record

QUESTION = "Which form of DTNH for which case?"
WEIGHTS = (0.1, 1.0, 10.0)
BOTH = ("SGD", "Adam")
WHOLE = cases.grid(BOTH, (16, None), SOURCES, (5, 10, 20), (0.0, 0.4), WEIGHTS, seeds=20)
SOME = ("plain", "DTNH", "EMA 0.99", "separate", "decoupled", "metric")
SOME_FORMS = [form for form in FORMS if form.name in SOME]
QUICK = cases.grid(BOTH, (16,), (SAME, ROTATED), (5,), (0.0,), WEIGHTS, 3, SOME_FORMS)


def main(argv: list[str] | None = None) -> None:
    """Run the grid, or the rest of it, write the results and print them."""
    parser = options.OneLineParser(
        prog="python -m benchmarks.digits.variants",
        description=__doc__,
        formatter_class=options.argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add: Any = parser.add_argument
    add("--quick", action="store_true", help="a corner of the grid, some forms, 3 seeds")
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
