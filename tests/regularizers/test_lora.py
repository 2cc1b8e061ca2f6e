"""The anchor of LoRA: it is L2-SP of the merged weights, whatever holds the factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_dtnh.regularizers import l2_sp, lora_l2_sp
from tests.core.helpers import assert_close, cast, minus, norm, random_tree

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SCALE = 0.75
LAYOUTS = {  # shapes of A and B, their product
    "matrices": ((7, 3), (3, 5), "ir,ro->io"),
    "rank 1": ((7, 1), (1, 5), "ir,ro->io"),
    "rank above the width": ((2, 4), (4, 3), "ir,ro->io"),
    "scanned layers": ((4, 7, 3), (4, 3, 5), "lir,lro->lio"),
    "scanned layers of rank 1": ((4, 7, 1), (4, 1, 5), "lir,lro->lio"),
    "scanned experts": ((4, 2, 7, 3), (4, 2, 3, 5), "leir,lero->leio"),
    "heads out": ((7, 3), (3, 2, 4), "ir,rhk->ihk"),
    "heads in": ((2, 4, 3), (3, 5), "hkr,ro->hko"),
    "scanned heads in": ((6, 2, 4, 3), (6, 3, 5), "lhkr,lro->lhko"),
    "a convolution": ((3, 3, 2, 4), (4, 5), "hwir,ro->hwio"),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def factors(a, b, seed=0):
    rng = np.random.default_rng(seed)
    return cast(random_tree({"lora_a": a, "lora_b": b}, rng), "float32")


def merged_penalty(product):
    """L2-SP of merged weights, which forms the product."""

    def penalty(params):
        change = SCALE * jnp.einsum(product, params["lora_a"], params["lora_b"])
        w = jnp.cos(jnp.arange(change.size, dtype=change.dtype)).reshape(change.shape)
        return l2_sp(w + change, w)

    return penalty


def value_and_grad(fun):
    return jax.jit(jax.value_and_grad(fun))


def penalty(params):
    return lora_l2_sp(params, scale=SCALE)


@layouts
def test_value_and_gradients_are_those_of_l2_sp_on_merged_weights(layout):
    a, b, product = layout
    params = factors(a, b)
    value, grads = value_and_grad(penalty)(params)
    with jax.enable_x64(True):
        dense = value_and_grad(merged_penalty(product))
        expected, expected_grads = dense(cast(params, "float64"))
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    for name in params:
        error = norm(minus(grads[name], expected_grads[name]))
        assert error <= 1e-6 * norm(expected_grads[name])


@layouts
def test_at_the_start_value_and_gradients_are_exactly_zero(layout):
    params = factors(*layout[:2])
    params["lora_b"] = jnp.zeros_like(params["lora_b"])
    value, grads = value_and_grad(penalty)(params)
    assert value == 0
    assert norm(grads) == 0


def test_where_two_readings_fit_the_number_of_stacked_axes_decides():
    params = factors((3, 7, 3), (3, 3, 5))
    for stacked, product in enumerate(["lir,rqo->liqo", "lir,lro->lio"]):
        value = lora_l2_sp(params, scale=SCALE, stacked=stacked)
        assert float(value) == pytest.approx(float(merged_penalty(product)(params)), rel=1e-5)


def test_the_product_is_never_formed():
    params, dense = factors((500, 2), (2, 400)), 4 * 500 * 400

    def temporary_bytes(fun):
        compiled = jax.jit(jax.value_and_grad(fun)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(penalty) < 0.05 * dense
    assert temporary_bytes(merged_penalty("ir,ro->io")) >= dense


PAIRS = [factors((7, 3), (3, 5), seed) for seed in (0, 1)]
A, B = ([pair[name] for pair in PAIRS] for name in ("lora_a", "lora_b"))
TREES = {
    "a name and a subtree": {"q": PAIRS[0], "k": {"lora": PAIRS[1]}},
    "the end of a name": {f"w{i}_{x}": pair[x] for i, pair in enumerate(PAIRS) for x in pair},
    "modules with kernels": [{x: {"kernel": pair[x]} for x in pair} for pair in PAIRS],
    "beside others": [*PAIRS, {"kernel": A[0], "xlora_a": B[0]}, None],
    "own names": {"b": {"a": A[0], "b": B[0]}, "a": {"a": A[1], "b": B[1]}},
}


@pytest.mark.parametrize("name", TREES)
def test_pairs_are_found_by_name_in_any_tree(name):
    names = {"names": ("a", "b")} if name == "own names" else {}
    expected = lora_l2_sp(PAIRS[0]) + lora_l2_sp(PAIRS[1])
    assert float(lora_l2_sp(TREES[name], **names)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_sharded_factors_have_the_value_and_gradient_of_whole_ones(kind):
    params = factors((2, 8, 3), (2, 3, 4))
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType[kind],))
    parts = {"lora_a": jax.P(None, "x", None), "lora_b": jax.P(None, None, "x")}
    sharded = {x: jax.device_put(params[x], jax.NamedSharding(mesh, parts[x])) for x in params}
    value, grads = value_and_grad(penalty)(sharded)
    expected, expected_grads = value_and_grad(penalty)(params)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert_close(grads, expected_grads)
    assert {x: grads[x].sharding.spec for x in params} == parts
