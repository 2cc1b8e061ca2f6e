"""KL to the pretrained network: directions, masks, without the target, in chunks of tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import value_and_grad_pair
from optax_dtnh.regularizers import (
    chunked_mean,
    distillation,
    forward_kl,
    non_target_logits,
    reverse_kl,
)
from tests.core.helpers import vector

pytestmark = pytest.mark.usefixtures("quickly_compiled")

GONE, rng = -np.inf, np.random.default_rng(0)
directions = pytest.mark.parametrize("kl", [forward_kl, reverse_kl])
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def normal(*shape):
    return jnp.float32(rng.standard_normal(shape))


def oracle(kl, z, z_s, t=1.0, keep=None):
    """`T^2 * mean(KL)` and its gradient, from probabilities in float64."""
    keep = np.ones(z.shape[:-1]) if keep is None else np.asarray(keep)

    def softmax(z):
        z = np.concatenate([0 * z, z], -1) if z.shape[-1] == 1 else z  # a binary head
        e = np.exp((np.asarray(z, np.float64) - z.max(-1, keepdims=True)) / t)
        return e / e.sum(-1, keepdims=True)

    p, p_s = softmax(z), softmax(z_s)
    first, second = (p_s, p) if kl is forward_kl else (p, p_s)
    ratio = np.log(np.where(first > 0, first, 1) / np.where(first > 0, second, 1))
    rows = np.sum(first * ratio, -1)
    grads = p - p_s if kl is forward_kl else p * (ratio - rows[..., None])
    count = max(keep.sum(), 1)
    grads = t * (grads * keep[..., None] / count)[..., -z.shape[-1] :]
    return t**2 * np.sum(rows * keep) / count, grads


def assert_like_the_oracle(kl, z, z_s, t=1.0, keep=None):
    value, grads = jax.value_and_grad(kl)(z, z_s, where=keep, temperature=t)
    expected, expected_grads = oracle(kl, z, z_s, t, keep)
    assert float(value) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(grads, expected_grads, atol=2e-6)


@directions
@pytest.mark.parametrize("shape", [(5,), (6, 4), (2, 3, 4), (3, 1), (1,)], ids=str)
@pytest.mark.parametrize("t", [0.5, 1, 4.0])
def test_the_value_is_the_mean_divergence_times_the_squared_temperature(kl, shape, t):
    z, z_s = normal(*shape), normal(*shape)
    assert_like_the_oracle(kl, z, z_s, t)
    assert distillation(z, z_s, temperature=t) == forward_kl(z, z_s, temperature=t)


@directions
@pytest.mark.parametrize("keep", [None, "some", "none"])
def test_without_the_target_the_rest_is_renormalized_on_the_tokens_that_count(kl, keep):
    labels = jnp.array([[0, 8, 3], [2, -1, 9]])  # two of them no classes
    masks = {"some": labels > 1, "none": labels > 9}
    z, z_s = (non_target_logits(normal(2, 3, 9), labels) for _ in range(2))
    assert_like_the_oracle(kl, z, z_s, 2.5, masks.get(keep))
    np.testing.assert_array_equal(jnp.isinf(z).sum(-1), labels % 9 == labels)


@directions
def test_what_a_masked_token_holds_reaches_neither_value_nor_gradient(kl):
    z, z_s, keep = normal(4, 9), normal(4, 9), jnp.array([True, False, True, False])
    value, grads = jax.value_and_grad(kl)(z.at[1].set(jnp.nan), z_s.at[3].set(GONE), where=keep)
    assert value == kl(z, z_s, where=keep)
    np.testing.assert_array_equal(np.any(grads != 0, -1), keep)


def test_large_logits_neither_overflow_nor_lose_their_gradient():
    z, z_s = jnp.array([[3e4, 0.0, -3e4]]), jnp.array([[0.0, 3e4, 0.0]])
    value, grads = jax.value_and_grad(forward_kl)(z, z_s)
    assert float(value) == pytest.approx(3e4)
    np.testing.assert_allclose(grads, [[1.0, -1.0, 0.0]])


MASKED = {  # the logits of student and teacher, and those of the same value without a mask
    "in both": ([1.0, GONE, 2.0], [0.0, GONE, 3.0], [1.0, 2.0], [0.0, 3.0]),
    "in the first": ([1.0, 0.0], [0.0, GONE], [1.0, 0.0], [0.0, -1e4]),
    "binary": ([GONE], [GONE], [1.0], [1.0]),
    "all but one": ([GONE, 5.0], [GONE, -5.0], [1.0], [1.0]),
}


@directions
@pytest.mark.parametrize("name", MASKED)
def test_a_masked_class_contributes_nothing_and_has_a_finite_gradient(kl, name):
    z, z_s, some, some_s = map(jnp.array, MASKED[name])
    if kl is reverse_kl:  # whose first distribution is the trained one
        z, z_s, some, some_s = z_s, z, some_s, some
    value, grads = jax.value_and_grad(kl)(z, z_s)
    assert float(value) == pytest.approx(float(kl(some, some_s)))
    assert np.isfinite(grads).all()


def test_a_temperature_in_float64_does_not_widen_the_value():
    with jax.enable_x64(True):
        assert distillation(normal(4), normal(4), temperature=np.float64(2)).dtype == jnp.float32


def test_a_class_that_only_the_second_distribution_masks_is_infinitely_far():
    masked, full = jnp.array([[0.0, GONE]]), jnp.array([[0.0, 1.0]])
    assert forward_kl(masked, full) == reverse_kl(full, masked) == np.inf


def test_without_the_target_fewer_gradients_conflict_with_cross_entropy():
    """Once training has raised the target's logit."""
    labels, z_s = jnp.arange(400), normal(400, 1000)
    z = z_s + 0.5 * normal(400, 1000) + jax.nn.one_hot(labels, 1000)
    g = jax.grad(lambda z: jnp.sum(cross_entropy(z, labels)))(z)

    def conflicts(form):
        r = jax.grad(lambda z: forward_kl(form(z), form(z_s)))(z)
        return np.mean(np.sum(g * r, -1) < 0)

    assert conflicts(lambda z: z) > 0.4
    assert conflicts(lambda z: non_target_logits(z, labels)) < 0.05


# --- chunk by chunk

N, WIDTH, CLASSES = 48, 8, 30
TARGETS, COUNTED = jnp.arange(N) % CLASSES, jnp.arange(N) % 3 > 0
PARAMS = {"h": normal(N, WIDTH), "w": normal(WIDTH, CLASSES)}
H_S, W_S = normal(N, WIDTH), normal(WIDTH, CLASSES)


def losses(params, h_s, y, w_s=W_S, **options):
    def of_token(w, h, h_s, y):
        z, z_s = h @ w, h_s @ w_s
        return cross_entropy(z, y), forward_kl(non_target_logits(z, y), non_target_logits(z_s, y))

    return chunked_mean(of_token, params["w"], jnp.tanh(params["h"]), h_s, y, **options)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("where", [None, COUNTED, TARGETS < 0], ids=["all", "some", "none"])
def test_chunks_have_the_mean_and_the_gradients_of_the_whole(size, where):
    def whole(params, h_s, y):
        z, z_s = jnp.tanh(params["h"]) @ params["w"], h_s @ W_S
        keep = np.ones(N, "float32") if where is None else np.float32(where)
        kl = forward_kl(non_target_logits(z, y), non_target_logits(z_s, y), where=where)
        return cross_entropy(z, y) @ keep / max(keep.sum(), 1), kl

    chunked = functools.partial(losses, where=where, chunk_size=size)
    pairs = (jax.jit(value_and_grad_pair(f))(PARAMS, H_S, TARGETS) for f in (chunked, whole))
    np.testing.assert_allclose(*map(vector, pairs), rtol=1e-5, atol=1e-6)


def test_a_masked_token_may_hold_anything_and_a_mean_may_be_an_array():
    h, y = H_S.at[::3].set(jnp.nan), TARGETS.at[::3].set(-100)
    fun = lambda h: chunked_mean(lambda _, h, y: h[y % WIDTH] ** 2, (), h, y, where=COUNTED)  # noqa: E731
    value, grads = jax.value_and_grad(fun)(h)
    assert np.isfinite(value)
    np.testing.assert_array_equal(np.any(grads != 0, -1), COUNTED)
    mean = chunked_mean(lambda _, h: h, (), h, where=COUNTED)
    np.testing.assert_allclose(mean, H_S[COUNTED].mean(0), atol=1e-6)


def test_the_gradient_of_narrow_parameters_is_summed_in_float32():
    h, w = jnp.ones((2000, 2), jnp.bfloat16), jnp.ones(2, jnp.bfloat16)
    inside = jax.grad(lambda w: chunked_mean(jnp.dot, w, h, chunk_size=1))(w)
    closed = jax.grad(lambda w: chunked_mean(lambda _, h: h @ w, (), h, chunk_size=1))(w)
    assert (inside == 1).all()
    assert (closed < 0.5).all()  # added up in bfloat16


def temporary(tokens, dtype, vocabulary=256_000):
    """The bytes of both gradients' program, as a multiple of the logits of 64 tokens in float32."""
    shape = jax.ShapeDtypeStruct
    params = {"h": shape((tokens, WIDTH), dtype), "w": shape((WIDTH, vocabulary), dtype)}
    rest = params["h"], shape((tokens,), jnp.int32), params["w"]
    fun = jax.jit(value_and_grad_pair(functools.partial(losses, chunk_size=64)))
    program = fun.lower(params, *rest).compile()
    return program.memory_analysis().temp_size_in_bytes / (4 * 64 * vocabulary)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_at_a_vocabulary_of_256k_does_not_grow_with_the_number_of_tokens(dtype):
    few, many = temporary(128, dtype), temporary(8192, dtype)
    assert few < 9
    assert many - few < 0.1  # some arrays like the hidden states; the logits would add 126


def test_each_device_has_its_share_of_every_chunk():
    rows = jax.NamedSharding(jax.make_mesh((8,), ("data",)), jax.P("data"))
    h = jax.device_put(normal(3200, WIDTH), rows)
    y = jax.device_put(jnp.arange(3200) % CLASSES, rows)
    fun = lambda h, y: losses({"h": h, "w": W_S}, h, y, chunk_size=400)  # noqa: E731
    program = jax.jit(fun).lower(h, y).compile().as_text()
    assert "all-gather" not in program
    assert f"f32[50,{CLASSES}]" in program  # the logits of a chunk, on one of 8 devices
