"""Numbers of any dtype as weights and temperatures where jax is to promote no dtype silently."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import (
    GradientPair,
    add_l2_sp,
    apply_rule,
    cosine,
    cosine_similarity,
    drop,
    dtnh,
    orthogonal,
    regularizers,
    scale_by_adam_dtnh,
    truncate,
)
from tests.core.helpers import assert_close, cast

NUMBERS = {"jnp.bfloat16": jnp.bfloat16(0.5), "np.float64": np.float64(0.5), "int": 1}
NUMBERS["array"] = np.array(0.5)
TREE = {"a": jnp.linspace(0.5, 1.5, 6).reshape(2, 3), "b": jnp.linspace(-1.0, 1.0, 3)}
OTHER = jax.tree.map(lambda x: 0.5 - x**2, TREE)


def updates(tx, dtype):
    g, r = cast(TREE, dtype), cast(OTHER, dtype)
    both = tx.update(g if hasattr(tx.init(g), "anchor") else GradientPair(g, r), tx.init(g), r)
    return both[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_a_weight_and_a_temperature_have_any_dtype(number, dtype):
    for factory in (dtnh, add_l2_sp, scale_by_adam_dtnh):
        expected = updates(factory(float(number)), dtype)
        injected = optax.inject_hyperparams(dtnh)(number)
        with jax.numpy_dtype_promotion("strict"):
            assert_close(updates(factory(number), dtype), expected)
            assert_close(updates(factory(lambda step: number), dtype), expected)
            pair = GradientPair(cast(TREE, dtype), cast(OTHER, dtype))
            injected.update(pair, injected.init(pair[0]), pair[0])
    with jax.numpy_dtype_promotion("strict"):
        regularizers.distillation(*pair, temperature=number)


@pytest.mark.parametrize("narrow", ["bfloat16", "float32", "float64"])
def test_two_trees_and_their_leaves_have_any_dtypes(narrow):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        mixed = {"a": TREE["a"].astype(narrow), "b": TREE["b"].astype("float64")}
        other = {"a": OTHER["a"].astype("float32"), "b": OTHER["b"].astype(narrow)}
        for rule in (truncate, orthogonal, drop, cosine):
            kept = apply_rule(rule, mixed, other)
            assert [x.dtype for x in kept.values()] == [x.dtype for x in mixed.values()]
            updates(dtnh(0.5, rule=rule), narrow)
        cosine_similarity(mixed, other)
        tx = add_l2_sp(0.1, anchor_dtype="bfloat16")
        tx.update(mixed, tx.init(mixed), other)
        weights = {"a": np.ones(3, np.float32), "b": np.ones(3)}
        regularizers.attention_feature_distance(mixed, other, weights)
        for value in (
            regularizers.l2_sp(mixed, other),
            regularizers.feature_distance(mixed, other),
            regularizers.distillation(mixed, other, temperature=2.0),
        ):
            assert value.dtype == jnp.float64
