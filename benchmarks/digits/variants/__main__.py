"""Which form of the method suits which case, and how much does the weight matter to it.

    python -m benchmarks.digits.variants

The tasks are those of `benchmarks.digits` with 10 images per class, with and without 40 % of their
labels redrawn, trained with SGD with momentum or with Adam, on batches of 16 or on all images, and
tested on 600. The decision is for the whole tree, a leaf, a channel or an element.

Claims about test accuracy against the plain regularizer, means over tasks and weights with 95 %
intervals over 20 seeds:

- Batches of 16, L2-SP: with this batch's gradient as the reference (`before`) DTNH is nearly inert;
  with `optax.ema(0.99)` (`smoothed`) it gains several points.
- Batches of 16, KnowDist, which shares the batch: `before` gains, and so does `optax.ema(0.9)`.
- SGD, batches of 16: the finer the decision, the less the weight matters.
- No form is never worse than the better of fine-tuning and the plain regularizer: there are cells
  in which all of them are, beyond chance.

It takes 15 minutes on two idle cores, and 3 on twelve.
"""

import sys
from argparse import Namespace

from benchmarks.digits.variants import analysis, cases, figure, runs, table
from benchmarks.harness.command import Question, command
from benchmarks.harness.record import Results

TITLE = "Which form of DTNH for which case?"


def measure(options: Namespace) -> Results:  # noqa: ARG001
    """Run the grid."""
    return {"question": TITLE, **runs.run(cases.WHOLE)}


QUESTION = Question(
    "digits.variants",
    __doc__,
    measure,
    text=lambda results: f"# {TITLE}\n\n{table.markdown(results)}",
    failures=analysis.failures,
    draw=lambda results: figure.draw(results, TITLE),
)


if __name__ == "__main__":
    sys.exit(command(QUESTION))
