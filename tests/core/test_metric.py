"""Adam with a regularizer that is conflict-free in Adam's own metric."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import (
    GradientPair,
    cosine,
    drop,
    orthogonal,
    per_leaf,
    plain,
    scale_by_adam_dtnh,
    truncate,
)
from tests.core.helpers import assert_equal, cast, minus, norm, random_tree, vector
from tests.core.loops import quickly
from tests.core.test_properties import in_float64

SHAPES = {"kernel": (6, 4), "bias": (4,), "scale": ()}
START = cast(random_tree(SHAPES, np.random.default_rng(0)), "float32")
B2, EPS, BOUND = 0.999, 1e-8, 10.0


def history(steps, seed=0, dtype="float32"):
    """Pairs of gradients, one leaf much larger than the others."""
    rng = np.random.default_rng(seed)
    pairs = [(random_tree(SHAPES, rng), random_tree(SHAPES, rng)) for _ in range(steps)]
    return [(cast(g | {"kernel": 100 * g["kernel"]}, dtype), cast(r, dtype)) for g, r in pairs]


def run(tx, pairs):
    """The last update and state."""
    tx = optax.with_extra_args_support(tx)
    state = tx.init(pairs[0][0])
    for g, r in pairs:
        update, state = tx.update(g, state, reg_grads=r)
    return update, state


def preconditioner(gradients):
    """`P` in float64 after these gradients, vectors, written without the library."""
    nu = np.zeros_like(gradients[0])
    for g in gradients:
        nu = B2 * nu + (1 - B2) * g**2
    nu_hat = nu / (1 - B2 ** len(gradients))
    typical = np.sqrt(nu_hat.mean()) + EPS
    return np.minimum(1 / (np.sqrt(nu_hat) + EPS), BOUND / typical)


@pytest.mark.parametrize("rule", [truncate, orthogonal, drop, cosine, plain])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-3), ("float64", 1e-9)])
def test_the_part_after_several_steps_is_the_rule_in_the_coordinates_of_the_root_of_p(
    rule, sign, dtype, error
):
    with jax.enable_x64(dtype == "float64"):
        *before, (g, r) = history(5, dtype=dtype)
        pairs = [*before, (g, jax.tree.map(lambda x, y: x + sign * 0.2 * y, r, g))]
        update, _ = run(scale_by_adam_dtnh(0.5, rule=rule), pairs)
        part = vector(minus(update, run(optax.scale_by_adam(), pairs)[0]))
    root = np.sqrt(preconditioner([vector(g) for g, _ in pairs]))
    expected = 0.5 * root * in_float64(rule, root * vector(pairs[-1][1]), root * vector(g))
    np.testing.assert_allclose(part, expected, rtol=error, atol=error / 100)


NARROW = {"mu_dtype": "bfloat16"}
ADAMS = [{}, {"nesterov": True}, NARROW, {"b1": 0.5, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-4}]


@pytest.mark.parametrize(
    ("options", "dtype"), [*((options, "float32") for options in ADAMS), (NARROW, "bfloat16")]
)
def test_without_a_pull_it_is_adam_bit_for_bit_at_every_step(options, dtype):
    adam, tx = optax.scale_by_adam(**options), scale_by_adam_dtnh(3.0, **options)
    state, own = tx.init(cast(START, dtype)), adam.init(cast(START, dtype))
    none = cast(optax.tree.zeros_like(START), dtype)
    updates = jax.jit(lambda g, r, state: tx.update(g, state, reg_grads=r))
    adams = jax.jit(adam.update)
    pulled = tx.init(cast(START, dtype))
    for g, r in history(6, dtype=dtype):
        update, state = updates(g, none, state)
        expected, own = adams(g, own)
        assert_equal(update, expected)
        other, pulled = updates(g, r, pulled)
        assert not np.array_equal(vector(other), vector(expected))
        assert_equal(pulled.inner, own)  # the moments are fed by g alone
        assert_equal(state.inner, own)


def test_a_mask_and_labels_leave_out_of_the_typical_element_and_decide_apart():
    (g, r), keep = history(1)[0], {"kernel": True, "bias": True, "scale": False}
    tx = scale_by_adam_dtnh(0.5, mask=keep, labels=per_leaf)
    update, state = run(tx, [(g, r)])
    part = minus(update, run(optax.scale_by_adam(), [(g, r)])[0])
    p = preconditioner([np.concatenate([vector(g["kernel"]), vector(g["bias"])])])
    conflicts = []
    for name, q in (("kernel", p[:24]), ("bias", p[24:])):
        m, root = vector(g[name]), np.sqrt(q)
        expected = 0.5 * root * in_float64(truncate, root * vector(r[name]), root * m)
        np.testing.assert_allclose(vector(part[name]), expected, rtol=1e-3, atol=1e-5)
        conflicts.append(m @ (q * vector(r[name])) < 0)
    assert_equal(part["scale"], np.float64(0))
    assert state.conflict == np.mean(conflicts)


def test_nan_in_either_gradient_stays_visible():
    g, r = history(1)[0]
    bad = {"kernel": jnp.full((6, 4), jnp.nan)}
    for pair in ((g | bad, r), (g, r | bad)):
        assert np.isnan(vector(run(scale_by_adam_dtnh(0.5), [pair])[0])).all()


@pytest.mark.parametrize("bound", [0.5, 10.0, 1e3])
def test_where_the_gradient_has_been_zero_p_is_bound_times_its_typical_value(bound):
    g = jnp.array([1.0, -1.0, 2.0, 0.0])  # root mean square sqrt(6 / 4)
    r = jnp.array([0.0, 0.0, 0.0, 3.0])
    for steps in (1, 20):
        update, _ = run(scale_by_adam_dtnh(0.5, bound=bound), [(g, r)] * steps)
        assert update[-1] == pytest.approx(0.5 * 3 * bound / np.sqrt(1.5), rel=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gradient_that_is_zero_everywhere_gives_zero_and_the_next_one_counts(dtype):
    (g, r), tx = history(1, dtype=dtype)[0], scale_by_adam_dtnh(1e5)
    none = optax.tree.zeros_like(g)
    update, state = run(tx, [(none, r)] * 3)
    assert_equal(update, none)
    assert state.conflict == 0.0
    update, _ = tx.update(g, state, reg_grads=r)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(update))
    assert norm(update) > 1e3


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**7, 2.0**30])
def test_a_common_scale_cancels_and_that_of_the_loss_divides_the_pull(factor):
    pairs = history(4)
    both = optax.tree.scale(factor, pairs)
    loss = [(g, r) for (g, _), (_, r) in zip(both, pairs, strict=True)]
    expected, _ = run(scale_by_adam_dtnh(0.5, eps=0.0), pairs)
    together, _ = run(scale_by_adam_dtnh(0.5, eps=0.0), both)
    heavier, _ = run(scale_by_adam_dtnh(0.5 * factor, eps=0.0), loss)
    assert_equal(together, expected)
    assert_equal(heavier, expected)


def test_derivatives_are_finite_where_a_gradient_is_zero_or_tiny():
    (g, r), *_ = history(1)

    def output(size, pull):
        tx = scale_by_adam_dtnh(0.5, eps_root=1e-8)  # as Adam needs it for that
        pair = GradientPair(optax.tree.scale(size, g), optax.tree.scale(pull, r))
        return optax.tree.sum(tx.update(pair, tx.init(g))[0])

    slopes = quickly(jax.grad(output, (0, 1)))
    for size in (0.0, 1e-12, 1e-3, 1.0):
        for pull in (0.0, 1.0):
            assert np.isfinite(slopes(size, pull)).all()


def test_more_elements_than_an_int32_counts_are_averaged():
    many = jax.ShapeDtypeStruct((3, 2**30), jnp.float32)
    tx = scale_by_adam_dtnh(0.5)
    state = jax.eval_shape(tx.init, many)
    update, _ = jax.eval_shape(lambda g, state: tx.update(g, state, reg_grads=g), many, state)
    assert update.shape == many.shape
