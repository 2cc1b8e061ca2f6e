"""Masks by the names of the parameters, and a mask in words."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from optax_dtnh import add_l2_sp, all_but, describe_mask
from tests.core.helpers import assert_equal

DICT = {"multi_head": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(3), "bias": jnp.ones(1)}}


class Net(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 4, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(80)])
        self.head = nnx.Linear(2, 3, rngs=rngs)


MODEL = Net(nnx.Rngs(0))
STATE = nnx.state(MODEL, nnx.Param)
MLP = eqx.filter(eqx.nn.MLP(2, 2, 2, 2, key=jax.random.key(0)), eqx.is_inexact_array)


def left_out(mask, tree):
    """The paths of the leaves outside, and a check that the mask fits the tree."""
    chosen = mask(tree)
    assert jax.tree.structure(chosen) == jax.tree.structure(tree)
    found = jax.tree.leaves_with_path(chosen)
    return [jax.tree_util.keystr(p, simple=True, separator="/") for p, keep in found if not keep]


@pytest.mark.parametrize(
    ("names", "tree", "expected"),
    [
        (["head"], DICT, ["head/bias", "head/kernel"]),
        (["bias"], DICT, ["head/bias"]),
        (["*head"], DICT, ["head/bias", "head/kernel", "multi_head/kernel"]),
        (["head/kernel"], DICT, ["head/kernel"]),
        (["head/b*", "multi_head"], DICT, ["head/bias", "multi_head/kernel"]),
        (["b"], {"net/a": {"w": 1.0}, "net/b": {"w": 1.0}}, ["net/b/w"]),
        (["0"], (1.0, [2.0, 3.0]), ["0", "1/0"]),
        (["1/0"], (1.0, [2.0, 3.0]), ["1/0"]),
        (["value"], STATE, [f"attention/value/{n}/value" for n in ("bias", "kernel")]),
        (["value"], MODEL.attention, [f"value/{n}/value" for n in ("bias", "kernel")]),
        (["layers/3/bias"], STATE, ["layers/3/bias/value"]),
        (["layers/2", "activation"], MLP, ["layers/2/weight", "layers/2/bias"]),
    ],
)
def test_a_name_leaves_out_the_leaves_with_that_whole_part_of_a_path(names, tree, expected):
    tree = nnx.state(tree, nnx.Param) if isinstance(tree, nnx.Module) else tree
    found = left_out(all_but(*names), tree)
    assert sorted(found) == sorted(expected)


def test_names_of_leaves_that_a_wrapper_or_a_filter_took_out_match():
    def labels(tree):
        return {"multi_head": "pretrained", "head": "new"}

    tx = optax.partition({"pretrained": add_l2_sp(0.1, anchor=DICT, mask=all_but("head")),
                          "new": optax.sgd(1.0)}, labels)  # fmt: skip
    updates, _ = tx.update(DICT, tx.init(DICT), DICT)
    assert_equal(updates["multi_head"], DICT["multi_head"])
    assert all_but("head")({"body": 1.0, "head": None}) == {"body": True, "head": None}


def test_flatten_around_a_mask_by_names_raises_instead_of_regularizing_nothing_or_all():
    tx = optax.flatten(add_l2_sp(0.1, mask=all_but("head")))
    with pytest.raises(TypeError, match="optax.flatten"):
        tx.init(DICT)


# --- in words


def test_a_description_says_what_is_out_and_in_with_a_star_for_numbers():
    head = describe_mask(STATE, all_but("head")).splitlines()
    assert head[:2] == ["560 of 569 parameters are regularized (98.4%)", "  out  head/bias: 3"]
    assert head[-1] == "  in   layers/*/kernel: 320 in 80 leaves"
    assert "  out  layers/3/bias: 2" in describe_mask(STATE, all_but("layers/3")).splitlines()


@pytest.mark.parametrize("names", [("head",), ("bias",), ("layers/3",), ("layers/*[05]",)])
def test_a_description_of_many_leaves_is_short_and_its_lines_add_up(names):
    lines = describe_mask(jax.eval_shape(lambda: STATE), all_but(*names)).splitlines()
    assert len(lines) <= 15
    counted = {"in": 0, "out": 0}
    for kind, _, size, *_ in map(str.split, lines[1:]):
        counted[kind] += int(size)
    assert lines[0].startswith(f"{counted['in']} of {sum(counted.values())} parameters")


def test_a_description_takes_a_prefix_or_no_mask_and_says_how_many_lines_it_leaves_out():
    assert "6 of 6" in describe_mask(DICT, None)
    assert "2 of 6" in describe_mask(DICT, {"multi_head": True, "head": False})
    many = {chr(97 + i) * 2: {chr(97 + j): jnp.ones(1) for j in range(4)} for i in range(20)}
    assert describe_mask(many, None).splitlines()[-1] == "  and 42 lines more"
