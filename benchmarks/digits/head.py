"""Whether a new head should take part in the decision about the backbone.

    python -m benchmarks.digits.head

No regularizer pulls at a new head, but the head's gradient may still enter the inner products:
`mask` leaves it out, a regularizer gradient of 0 leaves it in. Left in, `<g, g>` is larger, so that
less of the conflict is taken from the backbone, and the rest of the correction goes to the head,
along its own gradient; the guarantee holds for the whole tree instead of for the backbone. Tasks,
seeds and settings are those of `benchmarks.digits`.

Expected (numbers: benchmarks/results/digits.head.json): left in, the training loss ends lower, and
KnowDist keeps more of its gain with a good source; with an inappropriate source and with noisy
labels both regularizers lose. It takes about a minute on two CPU cores.
"""

import functools
from typing import Any

import jax
import optax

from benchmarks.digits import __main__ as digits
from benchmarks.digits import command, methods
from benchmarks.digits.__main__ import RECIPE
from benchmarks.digits.methods import Method, feature_pair, then_sgd
from benchmarks.digits.network import BACKBONE, Params
from optax_dtnh import GradientPair, dtnh, regularizers


def l2_sp_pair(
    params: Params, source: Params, pixels: jax.Array, labels: jax.Array
) -> GradientPair:
    """Return the gradients of the loss and of L2-SP on the backbone, zero on the head."""

    def distance(params):
        w, w_s = ({k: tree[k] for k in BACKBONE if BACKBONE[k]} for tree in (params, source))
        return regularizers.l2_sp(w, w_s)

    g = methods.loss_gradient(params, source, pixels, labels)
    return GradientPair(g, jax.grad(distance)(params))


def left_out_and_left_in(name: str, gradients: Any) -> tuple[Method, Method]:
    """Return DTNH with one regularizer, the head out of the decision and in it."""

    def optimizer(weight, mask) -> optax.GradientTransformation:
        return then_sgd(dtnh(weight, mask=mask), RECIPE)

    out, left_in = f"{name} + DTNH", f"{name} + DTNH, head in"
    return (
        Method(out, functools.partial(optimizer, mask=BACKBONE), gradients, name),
        Method(left_in, functools.partial(optimizer, mask=None), gradients, name, baseline=out),
    )


METHODS = (
    methods.fine_tuning(RECIPE),
    *left_out_and_left_in("L2-SP", l2_sp_pair),
    *left_out_and_left_in("KnowDist", feature_pair),
)


BENCHMARK = digits.BENCHMARK._replace(
    name="head",
    question="Should a new head take part in the decision about the backbone?",
    methods=METHODS,
)


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark, write the results and print them."""
    command.main(BENCHMARK, __doc__, argv)


if __name__ == "__main__":
    main()
