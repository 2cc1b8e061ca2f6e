"""The anchor of LoRA: L2-SP of the merged weights, without merging."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from optax_dtnh.regularizers import l2_sp, lora_l2_sp
from tests.core.helpers import assert_close, assert_equal, cast, minus, norm, random_tree
from tests.pages.pages import blocks, execute

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LAYOUTS = {  # shapes of A and B, and their product
    "matrices": ((7, 3), (3, 5), "ir,ro->io"),
    "rank 1": ((7, 1), (1, 5), "ir,ro->io"),
    "scanned experts of rank 1": ((4, 2, 7, 1), (4, 2, 1, 5), "leir,lero->leio"),
    "heads out": ((7, 3), (3, 2, 4), "ir,rhk->ihk"),
    "scanned heads in": ((6, 2, 4, 3), (6, 3, 5), "lhkr,lro->lhko"),
    "a convolution": ((3, 3, 2, 4), (4, 5), "hwir,ro->hwio"),
}


def factors(a, b, seed=0):
    rng = np.random.default_rng(seed)
    return cast(random_tree({"lora_a": a, "lora_b": b}, rng), "float32")


def penalty(params, **options):
    return lora_l2_sp(params, scale=0.75, **options)


def merged_penalty(params, product):
    """L2-SP of merged weights, which forms the product."""
    change = 0.75 * jnp.einsum(product, params["lora_a"], params["lora_b"])
    w = jnp.cos(jnp.arange(change.size, dtype=change.dtype)).reshape(change.shape)
    return l2_sp(w + change, w)


value_and_grad = jax.jit(jax.value_and_grad(penalty))
merged_value_and_grad = jax.jit(jax.value_and_grad(merged_penalty), static_argnums=1)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_value_and_gradients_are_those_of_l2_sp_on_merged_weights(layout):
    *shapes, product = layout
    params = factors(*shapes)
    value, grads = value_and_grad(params)
    with jax.enable_x64(True):
        expected, expected_grads = merged_value_and_grad(cast(params, "float64"), product)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    for name, grad in expected_grads.items():
        assert norm(minus(grads[name], grad)) <= 1e-6 * norm(grad)
    at_the_start = params | {"lora_b": jnp.zeros_like(params["lora_b"])}
    assert norm(value_and_grad(at_the_start)) == 0


def test_where_two_readings_fit_the_number_of_stacked_axes_decides():
    params = factors((3, 7, 3), (3, 3, 5))
    for stacked, product in enumerate(["lir,rqo->liqo", "lir,lro->lio"]):
        expected = merged_penalty(params, product)
        assert float(penalty(params, stacked=stacked)) == pytest.approx(float(expected), rel=1e-5)


def test_the_product_is_never_formed():
    params, dense = factors((500, 2), (2, 400)), 4 * 500 * 400
    ours, merged = value_and_grad.lower(params), merged_value_and_grad.lower(params, "ir,ro->io")
    assert ours.compile().memory_analysis().temp_size_in_bytes < 0.05 * dense
    assert merged.compile().memory_analysis().temp_size_in_bytes >= dense


def test_pairs_are_found_by_name_in_any_tree():
    p, q = factors((7, 3), (3, 5), seed=0), factors((7, 3), (3, 5), seed=1)
    expected = pytest.approx(float(penalty(p) + penalty(q)), rel=1e-6)
    others = {"kernel": p["lora_a"], "xlora_a": p["lora_b"], "none": None}
    assert float(penalty({"q": p, "k": {"lora": q}, "other": others})) == expected
    assert float(penalty({f"{i}_{x}": y[x] for i, y in enumerate((p, q)) for x in y})) == expected
    assert float(penalty([{x: {"kernel": y[x]} for x in y} for y in (p, q)])) == expected
    own = {x: dict(zip("ab", y.values(), strict=True)) for x, y in {"b": p, "a": q}.items()}
    assert float(penalty(own, names=("a", "b"))) == expected


def test_on_the_page_adapters_train_and_without_them_the_network_is_the_base():
    page = "docs/lora.md"  # `make clients-lora` runs all of it
    names = execute("\n".join(blocks(page, "python")[:2]), page)
    base, model, x = names["Net"](rngs=nnx.Rngs(0)), names["model"], names["x"]
    assert_equal(names["without_adapters"](model)(x), base(x))
    assert norm(model(x) - base(x)) > 0.1


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_sharded_factors_have_the_value_and_gradient_of_whole_ones(kind):
    params = factors((2, 8, 3), (2, 3, 4))
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType[kind],))
    parts = {"lora_a": jax.P(None, "x", None), "lora_b": jax.P(None, None, "x")}
    sharded = {x: jax.device_put(params[x], jax.NamedSharding(mesh, parts[x])) for x in params}
    found = value_and_grad(sharded)
    assert_close(found, value_and_grad(params))
    assert {x: grad.sharding.spec for x, grad in found[1].items()} == parts
