"""What is chosen among: fine-tuning, a regularizer and its DTNH form, at several weights.

A candidate is three numbers, so that one compiled program trains all of them at once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.digits.methods import Method, feature_pair, loss_gradient
from benchmarks.digits.network import BACKBONE
from benchmarks.digits.variants import forms
from benchmarks.digits.variants.forms import FINE_TUNING, HEAD_DECAY, RECIPE, Optimizer
from optax_dtnh import add_l2_sp, dtnh

FORMS = ("plain", "DTNH")


class Candidate(NamedTuple):
    """The numbers that tell the candidates apart, each an array with one entry per candidate.

    Attributes:
      weight: Of the regularizer, 0 for fine-tuning.
      removed: Share of the conflict that is removed: 0 for the plain regularizer, 1 for DTNH.
      decay: Weight decay of the backbone, of fine-tuning alone.
    """

    weight: Any
    removed: Any
    decay: Any


def candidates(weights: Sequence[float]) -> Candidate:
    """Return fine-tuning, then per weight the plain regularizer and its DTNH form."""
    rows = [(0.0, 0.0, RECIPE.backbone_decay)]
    rows += [(weight, removed, 0.0) for weight in weights for removed in (0.0, 1.0)]
    return Candidate(*np.array(rows, np.float32).T)


def names(regularizer: str, weights: Sequence[float]) -> list[tuple[str, float | None]]:
    """Return method and weight of the candidates, as in the records of `benchmarks.digits.variants`."""
    methods = [forms.name_of(regularizer, form) for form in FORMS]
    return [(FINE_TUNING, None), *((m, weight) for weight in weights for m in methods)]


def method(optimizer: Optimizer, regularizer: str) -> Method:
    """Return what trains any candidate, its optimizer a function of a `Candidate`."""
    in_place = regularizer == "L2-SP"
    member, gradients = (add_l2_sp, loss_gradient) if in_place else (dtnh, feature_pair)

    def build(one: Any) -> optax.GradientTransformation:
        def rule(dot, ref_sq, reg_sq):
            del ref_sq, reg_sq
            return 1.0, one.removed * jnp.minimum(dot, 0.0)

        summed = member(one.weight, mask=BACKBONE, rule=rule)
        decay = optax.add_decayed_weights(one.decay, mask=BACKBONE)
        return optax.chain(summed, decay, HEAD_DECAY, optimizer.direction(), optimizer.rate)

    return Method(f"candidates of {regularizer}", build, gradients, regularizer)
