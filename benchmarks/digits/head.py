"""Whether a new head should take part in the decision about the backbone.

    python -m benchmarks.digits.head

No regularizer pulls at a new head, but the head's gradient may still enter the inner products:
`mask` leaves it out, a regularizer gradient of 0 leaves it in. Left in, `<g, g>` is larger, so that
less of the conflict is taken from the backbone, and the rest of the correction goes to the head,
along its own gradient; the guarantee holds for the whole tree instead of for the backbone. Tasks,
seeds and settings are those of `benchmarks.digits`.

Claims: left in, KnowDist keeps more of its gain with a good source; with an inappropriate source
and with noisy labels both regularizers lose. It takes about a minute on two idle CPU cores.
"""

import sys

from benchmarks.digits import methods
from benchmarks.digits.methods import PAIRS, SGD, Method, regularized
from benchmarks.digits.question import question
from benchmarks.harness.command import command
from optax_dtnh.finetune.forms import FORMS


def left_out_and_left_in(regularizer: str) -> tuple[Method, Method]:
    """Return DTNH with one regularizer, the head out of the decision and in it."""
    form = FORMS["before"]._replace(takes_pair=True)
    out = regularized(regularizer, SGD, form)._replace(name=f"{regularizer} + DTNH")
    left_in = regularized(regularizer, SGD, form, mask=None)
    return out, left_in._replace(name=f"{out.name}, head in", baseline=out.name)


METHODS = (methods.fine_tuning(SGD), *(m for name in PAIRS for m in left_out_and_left_in(name)))
QUESTION = question(
    "digits.head",
    __doc__,
    "Should a new head take part in the decision about the backbone?",
    METHODS,
    {
        "L2-SP + DTNH, head in": {"loses": ("rot90", "permlab", "noisy")},
        "KnowDist + DTNH, head in": {"gains": ("same",), "loses": ("rot90", "permlab", "noisy")},
    },
)


if __name__ == "__main__":
    sys.exit(command(QUESTION))
