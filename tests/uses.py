"""Every public factory, and the ways a user calls what it makes."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_dtnh import GradientPair, add_l2_sp, dtnh, per_leaf, transform_pair


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
    """A mask function that knows nothing of the containers, as in the README."""
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


def momentum_pair(weight, mask=None):
    momentum = transform_pair(optax.trace(0.9), optax.trace(0.9))
    return optax.chain(momentum, dtnh(weight, mask=mask))


USES = {
    "dtnh, pair": Use(dtnh, as_pair),
    "dtnh, reg_grads": Use(dtnh, as_keyword),
    "dtnh, every option, pair": Use(full(dtnh), as_pair),
    "dtnh, every option, reg_grads": Use(full(dtnh), as_keyword),
    "transform_pair": Use(momentum_pair, as_pair),
    "add_l2_sp": Use(add_l2_sp, alone),
    "add_l2_sp, every option": Use(full(add_l2_sp), alone),
}
