"""Masks by the names of the parameters, and a mask in words."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from optax_dtnh import add_l2_sp, all_but, describe_mask, dtnh
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
        (["1"], (1.0, [2.0, 3.0], 4.0), ["1/0", "1/1"]),
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


def test_indices_match_as_whole_parts_at_any_depth():
    assert left_out(all_but("0"), (1.0, [2.0, 3.0])) == ["0", "1/0"]
    assert left_out(all_but("1/0"), (1.0, [2.0, 3.0])) == ["1/0"]


@pytest.mark.parametrize(("name", "near"), [("haed", "'head'"), ("zz", "'bias', 'kernel'")])
def test_a_name_that_matches_nothing_is_answered_with_names_that_do(name, near):
    with pytest.raises(ValueError, match=f"got '{name}', which matches none.*{near}"):
        all_but("bias", name)(DICT)


def test_names_of_leaves_that_a_wrapper_or_a_filter_took_out_match():
    def labels(tree):
        return {"multi_head": "pretrained", "head": "new"}

    tx = optax.partition({"pretrained": add_l2_sp(0.1, mask=all_but("head")),
                          "new": optax.sgd(1.0)}, labels)  # fmt: skip
    updates, _ = tx.update(DICT, tx.init(DICT), DICT)
    assert_equal(updates["multi_head"], DICT["multi_head"])
    assert all_but("head")({"body": 1.0, "head": None}) == {"body": True, "head": None}


@pytest.mark.parametrize("around", [optax.MultiSteps, optax.apply_if_finite])
def test_a_mask_by_names_works_inside_wrappers(around):
    tx = around(add_l2_sp(0.5, mask=all_but("head")), 1)
    state = tx.init(DICT)
    moved = jax.tree.map(lambda x: x + 2.0, DICT)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, DICT), state, moved)
    assert_equal(updates["multi_head"], {"kernel": jnp.ones(2)})
    assert_equal(updates["head"], jax.tree.map(jnp.zeros_like, DICT["head"]))


def test_flatten_around_a_mask_by_names_raises_instead_of_regularizing_nothing_or_all():
    tx = optax.flatten(add_l2_sp(0.1, mask=all_but("head")))
    with pytest.raises(TypeError, match="optax.flatten"):
        tx.init(DICT)


def test_inject_hyperparams_that_calls_the_mask_is_told_of_static_args():
    with pytest.raises(TypeError, match="static_args"):
        optax.inject_hyperparams(dtnh)(0.1, mask=all_but("head")).init(DICT)
    tx = optax.inject_hyperparams(dtnh, static_args=("mask",))(0.1, mask=all_but("head"))
    updates, _ = tx.update((DICT, DICT), tx.init(DICT), DICT)
    assert_equal(updates["head"], DICT["head"])


@pytest.mark.parametrize("names", [(), (["head"],), ("",)])
def test_names_have_to_be_strings(names):
    with pytest.raises(TypeError, match="one or more strings"):
        all_but(*names)


# --- in words


def test_a_description_counts_what_is_in_and_out():
    out, *rest = describe_mask(DICT, all_but("bias")).splitlines()
    assert out == "5 of 6 parameters are regularized (83.3 %)"
    assert [line.split() for line in rest] == [
        ["out", "head/bias", "1", "in", "1", "leaf"],
        ["in", "head/kernel", "3", "in", "1", "leaf"],
        ["in", "multi_head", "2", "in", "1", "leaf"],
    ]


@pytest.mark.parametrize("names", [("head",), ("bias",), ("layers/3",), ("layers/*[05]",)])
def test_a_description_of_many_leaves_is_short_and_its_lines_add_up(names):
    lines = describe_mask(jax.eval_shape(lambda: STATE), all_but(*names)).splitlines()
    assert len(lines) <= 40
    inside, _, total = lines[0].split()[:3]
    counted = {kind: 0 for kind in ("in", "out")}
    for line in lines[1:]:
        counted[line.split()[0]] += int(line.split()[2].replace(",", ""))
    assert counted["in"] == int(inside)
    assert sum(counted.values()) == int(total)


def test_a_description_says_how_many_lines_it_leaves_out():
    flat = {f"layer{i}": jnp.ones(2) for i in range(160)}
    lines = describe_mask(flat, {name: i % 2 == 0 for i, name in enumerate(flat)}).splitlines()
    assert len(lines) <= 40
    assert lines[-1] == "  in   and 62 more"


def test_a_description_takes_a_prefix_or_no_mask():
    assert "6 of 6" in describe_mask(DICT, None)
    assert "2 of 6" in describe_mask(DICT, {"multi_head": True, "head": False})
