"""Every public factory, and the ways a user calls what it makes."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

from optax_dtnh import (
    GradientPair,
    add_l2_sp,
    dtnh,
    per_channel,
    per_element,
    per_leaf,
    scale_by_adam_dtnh,
    transform_pair,
)


class Use(NamedTuple):
    """`factory(weight, mask)`, and `update` with one of the spellings of the gradients."""

    factory: Callable
    update: Callable


def as_pair(tx, g, r, state, params, **extra):
    return tx.update(GradientPair(g, r), state, params, **extra)


def as_keyword(tx, g, r, state, params, **extra):
    return tx.update(g, state, params, reg_grads=r, **extra)


def alone(tx, g, r, state, params, **extra):
    return tx.update(g, state, params, **extra)


def all_but_bias(tree):
    """A mask that, unlike `all_but`, also takes trees without a bias."""
    return jax.tree.map_with_path(lambda path, _: "bias" not in jax.tree_util.keystr(path), tree)


def full(factory):
    def make(weight, mask=None):
        return factory(
            weight,
            inner=optax.scale_by_adam(),
            mask=all_but_bias if mask is None else mask,
            reference=optax.ema(0.9, accumulator_dtype=jnp.float32),
            labels=per_leaf,
        )

    return make


def having(factory, **options):
    def make(weight, mask=None):
        return factory(weight, mask=mask, **options)

    return make


def squares(tree):
    return jax.tree.map(lambda w: w**2, tree)


def metric(weight, mask=None):
    return scale_by_adam_dtnh(weight, mask=mask)  # Adam's own numbers are not to be injected


def full_metric(weight, mask=None):
    mask = all_but_bias if mask is None else mask
    return scale_by_adam_dtnh(
        weight, b1=0.8, nesterov=True, eps_root=1e-3, bound=3.0, mask=mask, labels=per_leaf
    )


def momentum_pair(weight, mask=None):
    momentum = transform_pair(optax.trace(0.9), optax.trace(0.9))
    return optax.chain(momentum, dtnh(weight, mask=mask))


USES = {  # each has an option, or a spelling, that the ones before it lack
    "dtnh, pair": Use(dtnh, as_pair),
    "dtnh, reg_grads": Use(dtnh, as_keyword),
    "dtnh, every option, reg_grads": Use(full(dtnh), as_keyword),
    "dtnh, per element": Use(having(dtnh, labels=per_element), as_keyword),
    "dtnh, per channel": Use(having(dtnh, labels=per_channel), as_pair),
    "transform_pair": Use(momentum_pair, as_pair),
    "scale_by_adam_dtnh, pair": Use(metric, as_pair),
    "scale_by_adam_dtnh, every option": Use(full_metric, as_keyword),
    "add_l2_sp": Use(add_l2_sp, alone),
    "add_l2_sp, every option": Use(full(add_l2_sp), alone),
    "add_l2_sp, EWC": Use(having(add_l2_sp, anchor=squares, importance=squares), alone),
}
every_use = pytest.mark.parametrize("use", USES.values(), ids=USES)
