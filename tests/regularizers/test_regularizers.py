"""The regularizers: their formulas, their gradients, what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from optax_dtnh.regularizers import (
    attention_feature_distance,
    batch_spectral_shrinkage,
    channel_attention,
    diagonal_fisher,
    distillation,
    feature_distance,
    l2_sp,
    lora_l2_sp,
    reverse_kl,
)
from tests.core import helpers
from tests.core.helpers import assert_close, assert_equal, cast, minus, norm, random_tree

pytestmark = pytest.mark.usefixtures("quickly_compiled")

MAPS = {"stage1": (4, 3, 2, 5), "stage2": (4, 8), "one": (1, 1, 1, 1)}
MAPS |= {"image": (1, 2, 2, 3), "channel": (4, 2, 2, 1), "vector": (3,)}
WEIGHTS = {name: np.linspace(0.1, 2.0, shape[-1]) for name, shape in MAPS.items()}


def attention(f, f_s):
    return attention_feature_distance(f, f_s, cast({name: WEIGHTS[name] for name in f}, "float32"))


def soft(logits, logits_s, temperature=2.5):
    return distillation(logits, logits_s, temperature=temperature)


def shrinkage(f, f_s):
    """Sees `f` alone, the second argument is for the tests that drive all."""
    return batch_spectral_shrinkage(f, k=2)


def lora(f, f_s):
    """Sees `f` alone, too."""
    return lora_l2_sp(f, scale=1.5)


# Every regularizer as a function of two like trees, the names of these and their shapes.
ALL = {
    l2_sp: ("w", helpers.SHAPES["dict"]),
    feature_distance: ("f", MAPS),
    attention: ("f", MAPS),
    soft: ("logits", MAPS),
    reverse_kl: ("logits", MAPS),
    shrinkage: ("f", (6, 4)),
    lora: ("params", {"lora_a": (5, 2), "lora_b": (2, 3)}),
}
OF_TWO = [fun for fun in ALL if fun not in (shrinkage, lora)]
each = pytest.mark.parametrize("regularizer", ALL)
of_two = pytest.mark.parametrize("regularizer", OF_TWO)
of_features = pytest.mark.parametrize("regularizer", OF_TWO[1:])


def two(shapes, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return cast(random_tree(shapes, rng), dtype), cast(random_tree(shapes, rng), dtype)


@each
def test_the_gradient_is_that_of_finite_differences(regularizer):
    with jax.enable_x64(True):
        f, f_s = two(ALL[regularizer][1], "float64")
        fun = jax.jit(lambda f: regularizer(f, f_s))
        check_grads(fun, (f,), order=1, modes=["fwd", "rev"], rtol=1e-5)


@each
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_dtypes_are_computed_in_float32(regularizer, dtype):
    narrow = two(ALL[regularizer][1], dtype)
    value, grads = jax.value_and_grad(regularizer)(*narrow)
    wide, wide_grads = jax.value_and_grad(regularizer)(*(cast(x, "float32") for x in narrow))
    assert value.dtype == jnp.float32
    assert value == wide
    assert_equal(grads, cast(wide_grads, dtype))


@of_two
def test_zero_at_the_source_with_a_zero_gradient(regularizer):
    f, _ = two(ALL[regularizer][1])
    value, grads = jax.value_and_grad(regularizer)(f, f)
    assert value == 0
    assert norm(grads) <= (
        1e-6 if regularizer in (soft, reverse_kl) else 0
    )  # a softmax sums to 1 only nearly


@of_two
def test_a_tree_is_worth_the_sum_of_its_leaves(regularizer):
    f, f_s = two(ALL[regularizer][1])
    alone = {attention: lambda x, y, w: attention_feature_distance(x, y, cast(w, "float32"))}
    one = alone.get(regularizer, lambda x, y, w: regularizer(x, y))
    parts = [one(f[name], f_s[name], WEIGHTS.get(name)) for name in f]
    assert len(parts) > 1
    assert float(regularizer(f, f_s)) == pytest.approx(float(sum(parts)), rel=1e-6)


@of_features
def test_no_gradient_flows_into_the_teacher(regularizer):
    f, f_s = two(MAPS)
    assert norm(jax.grad(regularizer, argnums=1)(f, f_s)) == 0
    assert norm(jax.grad(regularizer, argnums=0)(f, f_s)) > 0


@pytest.mark.parametrize("shapes", helpers.SHAPES.values(), ids=helpers.SHAPES)
def test_l2_sp_is_half_the_squared_distance_and_its_gradient_the_difference(shapes):
    w, w_s = two(shapes)
    value, grads = jax.value_and_grad(l2_sp)(w, w_s)
    assert float(value) == pytest.approx(0.5 * norm(minus(w, w_s)) ** 2, rel=1e-6)
    assert_close(grads, minus(w, w_s))


def test_feature_distance_is_the_sum_over_maps_of_the_mean_over_elements():
    f = {"stage1": jnp.array([[1.0, 3.0], [0.0, 0.0]]), "stage2": jnp.array([2.0])}
    f_s = {"stage1": jnp.array([[1.0, 1.0], [0.0, 0.0]]), "stage2": jnp.array([5.0])}
    assert feature_distance(f, f_s) == 1.0 + 9.0
    assert 0.5 * feature_distance(f, f_s, reduction=jnp.sum) == 0.5 * (4.0 + 9.0)


def test_the_published_form_is_a_reduction():
    f, f_s = two((4, 3, 2, 5))
    weights, published = np.linspace(0.1, 2.0, 5), 0.0
    for example in np.asarray(minus(f, f_s)):
        for j in range(5):  # C * W_j * |difference|^2 / (H * W), summed over batch and channels
            published += 0.5 * 5 * weights[j] * np.linalg.norm(example[..., j]) ** 2 / (3 * 2)
    ours = attention_feature_distance(
        f,
        f_s,
        cast(weights, "float32"),
        reduction=lambda d: 0.5 * jnp.sum(jnp.mean(d, axis=(1, 2))),
    )
    assert float(ours) == pytest.approx(published, rel=1e-6)


CHANNELS = {"one": jnp.zeros((8, 2, 3, 4)), "two": jnp.zeros((8, 6))}
SHARES = {name: np.linspace(0.5, 2.0, x.shape[-1]) ** 2 for name, x in CHANNELS.items()}


def loss_of_shares(gates):
    one, two = (jnp.sum(np.float32(SHARES[name]) * gates[name].ravel()) for name in CHANNELS)
    return one - one * two


def increases():
    """Those of `loss_of_shares`, by hand."""
    one, two = (SHARES[name].sum() for name in CHANNELS)
    return {"one": SHARES["one"] * (two - 1), "two": SHARES["two"] * one}


def test_the_increase_is_that_of_the_loss_without_the_channel():
    found = channel_attention(loss_of_shares, CHANNELS, normalize=lambda increase: increase)
    for name, expected in increases().items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)


def test_the_weights_are_the_softmax_of_the_standardized_increases_over_5():
    weights = channel_attention(loss_of_shares, CHANNELS)
    for name, increase in increases().items():
        z = np.exp((increase - increase.mean()) / increase.std() / 5)
        np.testing.assert_allclose(weights[name], z / z.sum(), rtol=1e-4)


def test_the_gates_have_the_dtype_and_rank_of_the_maps():
    def loss(gates):
        assert (gates["one"].shape, gates["one"].dtype) == ((1, 1, 1, 4), jnp.bfloat16)
        assert gates["two"].shape == (1, 6)
        return jnp.sum(gates["two"])

    channel_attention(loss, {"one": CHANNELS["one"].astype(jnp.bfloat16), "two": CHANNELS["two"]})


def test_channels_that_do_not_matter_and_single_ones_get_equal_weights():
    maps = {"many": jnp.zeros((2, 5)), "one": jnp.zeros((2, 1))}
    weights = channel_attention(lambda gates: jnp.float32(0.3), maps)
    np.testing.assert_allclose(weights["many"], 0.2, rtol=1e-6)
    assert weights["one"] == 1


def test_the_estimate_is_traced_once_and_needs_the_memory_of_one_evaluation():
    rows, width, traced = 512, 64, []
    x = jnp.ones((rows, width))

    def loss(w, gates):
        traced.append(gates)
        return jnp.mean(jnp.sort((x * gates) @ w, axis=0) ** 2)  # a sort is not fused away

    maps = jax.eval_shape(lambda: x)  # shapes are enough
    estimate = jax.jit(lambda w: channel_attention(functools.partial(loss, w), maps))
    compiled = estimate.lower(jnp.ones((width, width))).compile()
    assert len(traced) == 1
    hidden = 4 * rows * width
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * hidden  # in parallel: 130


def test_scalars_leaves_without_elements_and_empty_subtrees_have_a_distance():
    assert l2_sp({"a": 2.0, "b": jnp.ones((0, 3))}, {"a": 0.0, "b": jnp.ones((0, 3))}) == 2.0
    assert feature_distance(jnp.float32(2.0), jnp.float32(0.0)) == 4.0
    f, empty = jnp.ones((2, 3)), {"b": {}, "c": None}
    assert feature_distance({"a": f} | empty, {"a": 0 * f} | empty) == 1.0
    assert soft({"a": f} | empty, {"a": f} | empty) == 0.0


def spectrum(*values, shape=None, seed=0):
    """A matrix with these singular values, in float64."""
    batch, features = shape or (len(values) + 3, len(values))
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.standard_normal((batch, len(values))))
    v, _ = np.linalg.qr(rng.standard_normal((features, len(values))))
    return u * np.array(values) @ v.T


SHAPES_2D = [(6, 4), (4, 6), (1, 3), (3, 1), (1, 1), (8, 300)]


@pytest.mark.parametrize("shape", SHAPES_2D, ids=str)
def test_batch_spectral_shrinkage_is_the_sum_of_the_smallest_squared_singular_values(shape):
    f, _ = two(shape)
    u, s, vh = np.linalg.svd(np.asarray(f, np.float64), full_matrices=False)
    for k in {1, min(shape) // 2 or 1, min(shape)}:
        value, grads = jax.value_and_grad(batch_spectral_shrinkage)(f, k=k)
        np.testing.assert_allclose(value, np.sum(s[-k:] ** 2), rtol=2e-5)
        np.testing.assert_allclose(grads, 2 * u[:, -k:] * s[-k:] @ vh[-k:], atol=2e-4)


SINGULAR = {  # of two shapes, to compile little
    "repeated at the cut": spectrum(3.0, 1.0, 1.0, 0.5),
    "zero": np.zeros((7, 4)),
    "rank deficient": spectrum(2.0, 1.0, 0.0, 0.0),
    "dead features": np.pad(spectrum(3.0, 2.0, shape=(7, 2)), ((0, 0), (0, 2))),
    "huge and tiny": spectrum(1e15, 1.0, 1e-15, 0.0),
    "rank deficient, wide": spectrum(2.0, 1.0, 1.0, 0.0, shape=(4, 9)),
    "every example twice": np.repeat(spectrum(3.0, 2.0, shape=(2, 9)), 2, axis=0),
}


@functools.cache
def of_a_batch(k):
    return jax.jit(jax.vmap(jax.value_and_grad(functools.partial(batch_spectral_shrinkage, k=k))))


@pytest.mark.parametrize("f", SINGULAR.values(), ids=SINGULAR)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_gradients_are_finite_with_repeated_and_zero_singular_values(f, k):
    s = np.linalg.svd(f, compute_uv=False)
    value, grads = of_a_batch(k)(jnp.asarray(f, "float32")[None])
    expected, rounding = np.sqrt(np.sum(s[-k:] ** 2)), 1e-6 * s[0]
    assert np.isfinite(grads).all()
    assert abs(float(value[0]) ** 0.5 - expected) <= 2 * rounding
    # Of any mixture of the singular directions that tie: |2 f v v^T|^2 = 4 |f v|^2.
    assert abs(norm(grads) - 2 * expected) <= 4 * rounding


def test_the_gradient_is_right_far_below_the_largest_singular_value():
    f = spectrum(1.0, 0.03, 1e-3, 5e-4, shape=(4, 40))
    u, s, vh = np.linalg.svd(f, full_matrices=False)
    grads = jax.grad(batch_spectral_shrinkage)(jnp.asarray(f, "float32"))
    expected = 2 * s[-1] * np.outer(u[:, -1], vh[-1])
    assert norm(grads - expected) < 1e-3 * norm(expected)  # by way of `f f^T`: 0.03


# --- the Fisher information


def gaussian(params, example, key=None):
    """`log p(y | x)` up to a constant, with `y` around `w x + b`, of variance 4."""
    mean, y = params["w"] @ example[0] + params["b"], example[1]
    y = y if key is None else jax.lax.stop_gradient(mean + 2.0 * jax.random.normal(key, (3,)))
    return -jnp.sum((y - mean) ** 2) / 8


def softmax(params, example, key=None):
    logits, y = params["w"] @ example[0] + params["b"], example[1]
    return jax.nn.log_softmax(logits)[y if key is None else jax.random.categorical(key, logits)]


ROWS = np.float32(np.random.default_rng(0).standard_normal((8, 3)))
FLAT = {"w": np.zeros((3, 3)), "b": np.log([1.0, 2.0, 1.0])}
STEEP = FLAT | {"w": np.linspace(-1.0, 1.0, 9).reshape(3, 3)}
# Labels of each row, distributed as `FLAT` says.
LABELS = {gaussian: FLAT["b"] + [[2.0], [-2.0]] * 2, softmax: np.array([0, 1, 1, 2])}


def closed_form(family, params):
    p = np.exp(ROWS @ params["w"].T + params["b"])
    p /= p.sum(1, keepdims=True)
    curvature = p * (1 - p) if family is softmax else np.full((8, 3), 1 / 4)
    return cast({"w": curvature.T @ ROWS**2 / 8, "b": curvature.mean(0)}, "float32")


@pytest.mark.parametrize("family", LABELS)
def test_the_fisher_information_is_that_of_the_closed_form(family):
    labels, flat, steep = LABELS[family], cast(FLAT, "float32"), cast(STEEP, "float32")
    x, y = np.repeat(ROWS, len(labels), 0), np.concatenate([labels] * 8)
    batches = ((x[:5], y[:5]), (x[5:], y[5:]))  # of different sizes
    assert_close(diagonal_fisher(family, flat, iter(batches)), closed_form(family, FLAT))
    many, expected = [np.concatenate([a] * 128) for a in (x, y)], closed_form(family, STEEP)
    drawn = diagonal_fisher(family, steep, [many], key=jax.random.key(0))
    of_data = diagonal_fisher(family, steep, [many])
    assert norm(minus(drawn, expected)) < 0.05 * norm(expected) < norm(minus(of_data, expected))


def test_each_example_has_its_key_in_batches_of_any_size_and_a_size_is_traced_once():
    traced, params, key = [], cast(STEEP, "float32"), jax.random.key(0)
    log_prob = lambda *args: (traced.append(1), softmax(*args))[1]  # noqa: E731
    whole = diagonal_fisher(log_prob, params, [(np.tile(ROWS, (6, 1)), np.zeros(48))], key=key)
    assert_close(diagonal_fisher(log_prob, params, [(ROWS, np.zeros(8))] * 6, key=key), whole)
    assert len(traced) == 2


def test_the_fisher_information_takes_the_memory_of_one_gradient():
    estimate = jax.jit(lambda w, x: diagonal_fisher(lambda w, x: jnp.tanh(x @ w) @ w[0], w, [x]))
    w, x = jnp.ones((256, 128), jnp.bfloat16), jnp.ones((512, 256))
    assert jax.eval_shape(estimate, w, x).dtype == jnp.float32
    memory = estimate.lower(w, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1.5 * 4 * w.size
