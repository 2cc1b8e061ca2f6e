"""Which form of the method suits which case, and how much does the weight matter to it.

    python -m benchmarks.digits.variants            # run it again to resume
    python -m benchmarks.digits.variants --quick    # a corner of the grid, under 3 minutes

The tasks are those of `benchmarks.digits` with 10 images per class, with and without 40 % of their
labels redrawn, trained with SGD with momentum or with Adam, on batches of 16 or on all images, and
tested on 600. The decision is for the whole tree, a leaf, a channel or an element.

Expected, in points of test accuracy against the plain regularizer, means over tasks and weights
with 95 % intervals over 20 seeds (all numbers: benchmarks/results/digits.variants.md):

- Batches of 16, L2-SP: with this batch's gradient as the reference (`before`) DTNH is nearly inert,
  +0.3 +- 0.1 with SGD, +0.5 +- 0.1 with Adam; with `optax.ema(0.99)` (`smoothed`) it is +5.6 +- 0.4
  and +6.9 +- 0.3.
- Batches of 16, KnowDist, which shares the batch: `before` +1.6 +- 0.2 and +2.4 +- 0.2, with
  `optax.ema(0.9)` +2.3 +- 0.2 and +3.0 +- 0.3, `momentum` with SGD +2.6 +- 0.3.
- In Adam's metric L2-SP diverges for some seed in 88 of 108 cells.
- No form is never worse than the better of fine-tuning and the plain regularizer: in 121 of 432
  cells all of them are, beyond chance, by most with a good source and noisy target labels or a
  source that does not suit and L2-SP at weight 10.

It takes an hour next to other work.
"""

import sys
from argparse import Namespace

from benchmarks.digits.variants import analysis, cases, figure, runs, table
from benchmarks.harness.command import Question, command, option
from benchmarks.harness.record import Results

TITLE = "Which form of DTNH for which case?"


def measure(options: Namespace) -> Results:
    """Run the grid, or the rest of it."""
    grid, name = (cases.QUICK, "quick") if options.quick else (cases.WHOLE, "whole")
    return {"question": TITLE, **runs.run(grid, options.out / f"{name}.jsonl")}


QUICK = "Run a corner of the grid: some forms, 3 seeds."
OPTION = option("--quick", action="store_true", help=QUICK)
QUESTION = Question(
    "digits.variants",
    __doc__,
    measure,
    text=lambda results: f"# {TITLE}\n\n{table.markdown(results)}",
    failures=analysis.failures,
    draw=lambda results: figure.draw(results, TITLE),
    options=OPTION,
)


if __name__ == "__main__":
    sys.exit(command(QUESTION))
