"""KL to the base: both directions, masks, the rest without the target, and chunk by chunk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from optax_dtnh import value_and_grad_pair
from optax_dtnh.regularizers import chunked_mean, forward_kl, non_target_logits, reverse_kl
from tests.core.helpers import vector

pytestmark = pytest.mark.usefixtures("quickly_compiled")

rng = np.random.default_rng(0)
Z, Z_S = (jnp.float32(3 * rng.standard_normal((4, 6, 9))) for _ in range(2))
LABELS, KEEP = jnp.int32(rng.integers(9, size=(4, 6))), jnp.array(rng.random((4, 6)) < 0.6)
GONE = -jnp.inf
directions = pytest.mark.parametrize("kl", [forward_kl, reverse_kl])


def oracle(kl, z, z_s, keep, t):
    """The value and the gradient in float64, from probabilities of the classes that are left."""
    value, grads, count = 0.0, np.zeros(z.shape), max(np.sum(keep), 1)
    for row in zip(*np.nonzero(keep), strict=True):
        left = np.isfinite(z[row]) & np.isfinite(z_s[row])
        p, q = (np.exp(np.float64(x[row][left]) / t) for x in (z, z_s))
        p, q = p / p.sum(), q / q.sum()
        if kl is forward_kl:
            value += np.sum(q * np.log(q / p))
            grads[row][left] = p - q
        else:
            value += (divergence := np.sum(p * np.log(p / q)))
            grads[row][left] = p * (np.log(p / q) - divergence)
    return t**2 * value / count, t * grads / count


@directions
@pytest.mark.parametrize("t", [1.0, 2.5])
@pytest.mark.parametrize("keep", [None, KEEP, ~KEEP & KEEP], ids=["all", "some", "none"])
@pytest.mark.parametrize("labels", [None, LABELS, LABELS - 1], ids=["", "non-target", "padded"])
def test_values_and_gradients_are_those_of_float64(kl, t, keep, labels):
    z, z_s = ((x if labels is None else non_target_logits(x, labels)) for x in (Z, Z_S))
    value, grads = jax.value_and_grad(kl)(z, z_s, where=keep, temperature=t)
    rows = np.ones(LABELS.shape, bool) if keep is None else np.array(keep)
    expected, expected_grads = oracle(kl, z, z_s, rows, t)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(grads, expected_grads, atol=1e-6)


@directions
def test_what_a_masked_token_holds_reaches_neither_value_nor_gradient(kl):
    (z, z_s), keep = (x.at[0, :2].set(bad) for x, bad in ((Z, jnp.nan), (Z_S, GONE))), KEEP
    keep = keep.at[0, :2].set(False)
    value, grads = jax.value_and_grad(kl)(z, z_s, where=keep)
    assert value == kl(Z, Z_S, where=keep)
    assert (np.asarray(grads)[~keep] == 0).all()
    assert (np.abs(np.asarray(grads)[keep]).max(-1) > 0).all()


@directions
def test_a_class_that_only_one_masks_is_nothing_or_infinitely_far(kl):
    some, fewer = jnp.array([[1.0, 0.0, 2.0]]), jnp.array([[1.0, GONE, 2.0]])
    nothing, infinite = [(some, fewer), (fewer, some)][:: 1 if kl is forward_kl else -1]
    value, grads = jax.value_and_grad(kl)(*nothing)
    assert 0 < value < 1
    assert np.isfinite(grads).all()
    assert kl(*infinite) == np.inf


def test_without_the_target_fewer_gradients_conflict_with_cross_entropy():
    """Once training has raised the target's logit."""
    labels, z_s = jnp.arange(400), jnp.float32(rng.standard_normal((400, 1000)))
    z = z_s + 0.5 * jnp.float32(rng.standard_normal(z_s.shape)) + jax.nn.one_hot(labels, 1000)
    g = jax.grad(lambda z: jnp.sum(cross_entropy(z, labels)))(z)

    def conflicts(form):
        r = jax.grad(lambda z: forward_kl(form(z), form(z_s)))(z)
        return np.mean(np.sum(g * r, -1) < 0)

    assert conflicts(lambda z: z) > 0.4
    assert conflicts(lambda z: non_target_logits(z, labels)) < 0.05


# --- chunk by chunk

cross_entropy = optax.softmax_cross_entropy_with_integer_labels
N, WIDTH, CLASSES = 50, 8, 30
H, H_S = (jnp.float32(x) for x in rng.standard_normal((2, N, WIDTH)))
W, W_S = (jnp.float32(x) for x in rng.standard_normal((2, WIDTH, CLASSES)))
TARGETS, COUNTED = jnp.arange(N) % CLASSES, jnp.arange(N) % 3 > 0


def of_token(w, w_s, h, h_s, y):
    z, z_s = h @ w, h_s @ w_s
    return cross_entropy(z, y), forward_kl(non_target_logits(z, y), non_target_logits(z_s, y))


def losses(params, h_s, y, w_s=W_S, **options):
    h = jnp.tanh(params["h"])
    fun = lambda w, *token: of_token(w, w_s, *token)  # noqa: E731
    return chunked_mean(fun, params["w"], h, h_s, y, **options)


@pytest.mark.parametrize("size", [1, 7, 25, 1000])
@pytest.mark.parametrize("where", [None, COUNTED, ~COUNTED & COUNTED], ids=["all", "some", "none"])
def test_chunks_have_the_mean_and_the_gradients_of_the_whole(size, where):
    def whole(params, h_s, y):
        loss, _ = of_token(params["w"], W_S, jnp.tanh(params["h"]), h_s, y)
        z, z_s = (non_target_logits(z, y) for z in (jnp.tanh(params["h"]) @ params["w"], h_s @ W_S))
        keep = jnp.ones(N) if where is None else jnp.float32(where)
        return loss @ keep / max(keep.sum(), 1), forward_kl(z, z_s, where=where)

    batch = ({"h": H, "w": W}, H_S, TARGETS)
    chunked = functools.partial(losses, where=where, chunk_size=size)
    found, expected = (vector(value_and_grad_pair(f)(*batch)) for f in (chunked, whole))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_masked_token_may_hold_anything_and_means_may_be_arrays():
    h, y = H.at[::3].set(jnp.nan), TARGETS.at[::3].set(-100)
    value, grads = jax.value_and_grad(
        lambda h: chunked_mean(lambda w, h, y: h[y], (), h, y, where=COUNTED, chunk_size=4)
    )(h)
    assert np.isfinite(value)
    assert (np.asarray(grads)[::3] == 0).all()
    mean = chunked_mean(lambda w, h: {"h": h}, (), H, where=COUNTED, chunk_size=4)["h"]
    np.testing.assert_allclose(mean, np.asarray(H)[COUNTED].mean(0), atol=1e-6)


def test_the_gradient_of_narrow_parameters_is_summed_in_float32():
    h, w = jnp.ones((2000, 2), jnp.bfloat16), jnp.ones(2, jnp.bfloat16)
    inside = jax.grad(lambda w: chunked_mean(jnp.dot, w, h, chunk_size=1))(w)
    closed = jax.grad(lambda w: chunked_mean(lambda _, h: h @ w, (), h, chunk_size=1))(w)
    assert (inside == 1).all()
    assert (closed < 0.5).all()  # added up in bfloat16


def temporary(fun, tokens, dtype, vocabulary=256_000):
    """The bytes of both gradients' program, and those of the logits of all tokens."""
    shape = jax.ShapeDtypeStruct
    params = {"h": shape((tokens, WIDTH), dtype), "w": shape((WIDTH, vocabulary), dtype)}
    rest = shape((tokens, WIDTH), dtype), shape((tokens,), jnp.int32), params["w"]
    program = jax.jit(value_and_grad_pair(fun)).lower(params, *rest).compile()
    return program.memory_analysis().temp_size_in_bytes, 4 * tokens * vocabulary


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_at_a_vocabulary_of_256k_does_not_grow_with_the_number_of_tokens(dtype):
    chunked = functools.partial(losses, chunk_size=64)
    few, logits_of_few = temporary(chunked, 128, dtype)
    many, logits_of_many = temporary(chunked, 8192, dtype)
    assert many - few < 30 * 4 * (8192 - 128) * WIDTH  # some arrays like the hidden states
    assert few < 4.5 * logits_of_few
    assert many < 0.07 * logits_of_many


def test_each_device_has_its_share_of_every_chunk():
    mesh = jax.make_mesh((8,), ("data",))
    rows = jax.NamedSharding(mesh, P("data"))
    batch = [jax.device_put(jnp.tile(x, (64, 1)[: x.ndim]), rows) for x in (H, H_S, TARGETS)]
    fun = lambda h, h_s, y: losses({"h": h, "w": W}, h_s, y, chunk_size=400)  # noqa: E731
    program = jax.jit(fun).lower(*batch).compile().as_text()
    assert "all-gather" not in program
    assert f"f32[50,{CLASSES}]" in program  # the logits of a chunk, on one of 8 devices
