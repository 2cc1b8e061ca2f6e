"""What is chosen among: fine-tuning, a regularizer and its DTNH form, at several weights.

A candidate is three numbers, so that one compiled program trains all of them at once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.digits import methods
from benchmarks.digits.methods import Method, Optimizer
from benchmarks.digits.network import BACKBONE
from benchmarks.digits.variants.forms import name_of
from optax_dtnh.finetune.forms import FORMS


class Candidate(NamedTuple):
    """The numbers that tell the candidates apart, each an array with one entry per candidate."""

    weight: Any  # of the regularizer, 0 for fine-tuning
    removed: Any  # share of the conflict that is removed: 0 for the plain regularizer, 1 for DTNH
    decay: Any  # weight decay of the backbone, of fine-tuning alone


def candidates(weights: Sequence[float]) -> Candidate:
    """Return fine-tuning, then per weight the plain regularizer and its DTNH form."""
    rows = [(0.0, 0.0, methods.RECIPE.backbone_decay)]
    rows += [(weight, removed, 0.0) for weight in weights for removed in (0.0, 1.0)]
    return Candidate(*np.array(rows, np.float32).T)


def names(regularizer: str, weights: Sequence[float]) -> list[tuple[str, float | None]]:
    """Return method and weight of the candidates, as in the record of the variants."""
    both = [name_of(regularizer, form) for form in ("plain", "before")]
    return [(methods.FINE_TUNING, None), *((m, weight) for weight in weights for m in both)]


def method(optimizer: Optimizer, regularizer: str) -> Method:
    """Return what trains any candidate, its optimizer a function of a `Candidate`."""

    def build(one: Any) -> optax.GradientTransformation:
        def rule(dot, ref_sq, reg_sq):
            del ref_sq, reg_sq
            return 1.0, one.removed * jnp.minimum(dot, 0.0)

        decay = optax.chain(optax.add_decayed_weights(one.decay, mask=BACKBONE), methods.HEAD_DECAY)
        options = {"decay": decay, "rule": rule}
        trained = methods.regularized(regularizer, optimizer, FORMS["before"], **options)
        return trained.optimizer(one.weight)

    gradients = methods.regularized(regularizer, optimizer, FORMS["before"]).gradients
    return Method(regularizer, build, gradients, regularizer)
