"""The report by path: next to NumPy, to the states, and in the ways that it is called."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given

from optax_dtnh import (
    Along,
    add_l2_sp,
    all_but,
    capped,
    conflict_report,
    drop,
    dtnh,
    interpolate,
    per_element,
    per_leaf,
    truncate,
)
from tests.core.helpers import assert_close, assert_equal, cast, norm, random_tree, vector
from tests.core.strategies import cases
from tests.core.test_properties import by_index, refute, third

BODY = {"body": True, "head": False}


def gradients(dtype="float32"):
    rng = np.random.default_rng(3)
    shapes = {"body": {"kernel": (3, 4), "bias": (4,)}, "head": (4, 2)}
    return [cast(random_tree(shapes, rng), dtype) for _ in range(3)]


# --- next to NumPy


def over(x, y):
    return x / y if y else np.inf if x else 0.0


def by_hand(g, r, group, here, weight):
    """The entries of some elements in float64, each element being in a group."""
    kept, dots = r.copy(), []
    for at in (group == k for k in np.unique(group)):
        dot, margin = r[at] @ g[at], 1e-5 * norm(r[at]) * norm(g[at])
        kept[at] -= min(dot, 0.0) / (g[at] @ g[at] or 1.0) * g[at]
        dots += [(dot < -margin, dot < margin)] * int(here[at].any())
    off = 1e-5 * norm(r)  # the rounding of the whole may be in one leaf
    g, r, kept = g[here], r[here], kept[here]
    gone, off_r = over(norm(r - kept), norm(r)), off / (norm(r) or 1.0)
    return {
        "cosine": (r @ g / (norm(r) * norm(g) or 1.0), 1e-5),
        "loss_norm": (norm(g), 1e-5 * norm(g)),
        "reg_norm": (norm(r), 1e-5 * norm(r)),
        "removed": (gone**2, 2 * gone * off_r + off_r**2),
        "ratio": (over(weight * norm(kept), norm(g)), weight * off / (norm(g) or 1.0)),
        "conflict": (np.mean(dots), np.ptp(np.mean(dots, axis=0)) + 1e-6),
    }


def is_that_of_numpy(way, case):
    report, group_of = way
    paths, leaves = zip(*jax.tree.leaves_with_path(case.g), strict=True)
    leaf = np.repeat(np.arange(len(leaves)), [x.size for x in leaves])
    group = np.arange(leaf.size) if group_of is None else np.array([group_of(i) for i in leaf])
    parts = {
        jax.tree_util.keystr(p, simple=True, separator="/"): leaf == i for i, p in enumerate(paths)
    }
    found = report(case.g, case.r, case.weight)
    for path, here in {**parts, "": leaf >= 0}.items():
        expected = by_hand(vector(case.g), vector(case.r), group, here, case.weight)
        for name, (value, slack) in expected.items():
            x = float(found["/".join(filter(None, (name, path)))])
            assert x == value or abs(x - value) <= slack, name


def reporting(labels):
    return jax.jit(lambda g, r, weight: conflict_report(g, r, weight=weight, labels=labels))


WAYS = {  # the report, and the group of a leaf by its index; None if each element is one
    "whole tree": (reporting(None), lambda i: 0),
    "per leaf": (reporting(per_leaf), int),
    "labels": (reporting(by_index(third)), third),
    "per element": (reporting(per_element), None),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@given(case=cases(("layers", "scalar", "mixed", "unlike")))
def test_the_report_is_that_of_numpy(way, case):
    is_that_of_numpy(way, case)


def test_a_search_finds_that_the_report_of_other_decisions_is_another():
    refute(is_that_of_numpy, (WAYS["whole tree"][0], int), cases(("layers",)))


# --- next to the states

LABELS = {
    "whole tree": None,
    "per leaf": per_leaf,
    "labels": {"body": {"kernel": "a", "bias": "b"}, "head": "a"},
    "channels": {"body": {"kernel": Along((-1,)), "bias": "b"}, "head": Along((0,))},
}
by_labels = pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)


@pytest.mark.parametrize("rule", [drop, capped(truncate, 0.1)])
@by_labels
def test_the_report_agrees_with_the_state_and_the_update_of_a_pair(labels, rule):
    (g, r, _), options = gradients(), {"mask": BODY, "rule": rule, "labels": labels}
    tx = dtnh(0.5, **options)
    update, state = tx.update((g, r), tx.init(g))
    report = conflict_report(g, r, weight=0.5, **options)
    assert report["conflict"] == state.conflict
    ratio = norm(jax.tree.map(jnp.subtract, update, g)) / norm(g["body"])
    assert float(report["ratio"]) == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("mask", [BODY, None], ids=["body", "all"])
@by_labels
def test_the_report_agrees_with_the_state_of_an_anchor_behind_an_averaged_reference(labels, mask):
    g, params, start = gradients()
    average = optax.ema(0.9, accumulator_dtype=jnp.float32)
    anchored = add_l2_sp(0.5, mask=mask, reference=average, labels=labels)
    tx = optax.chain(anchored, optax.sgd(0.1, momentum=0.9))

    state, away = tx.init(start), jax.tree.map(jnp.subtract, params, start)
    for gradient in (g, optax.tree.scale(-0.5, g), optax.tree.scale(0.1, away)):
        _, state = tx.update(gradient, state, params)
        anchor, m = (optax.tree.get(state, name) for name in ("anchor", "ema"))
        report = conflict_report(gradient, params, anchor=anchor, reference=m, labels=labels)
        assert report["conflict"] == optax.tree.get(state, "conflict")
        distance = norm(away if mask is None else away["body"])
        assert float(report["reg_norm"]) == pytest.approx(distance, rel=1e-6)
        assert ("cosine/head" in report) == (mask is None)


def test_what_the_reference_leaves_out_is_in_no_entry():
    g, r, m = gradients()
    left_out = conflict_report(g, r, reference=m | {"head": optax.MaskedNode()})
    assert_equal(left_out, conflict_report(g, r, reference=m, mask=BODY))


def test_a_mark_that_a_wrapper_put_into_every_tree_is_in_no_entry():
    g, r = (tree | {"head": optax.MaskedNode()} for tree in gradients()[:2])
    alone = conflict_report({"body": g["body"]}, {"body": r["body"]}, labels=per_leaf)
    assert_equal(conflict_report(g, r, labels=per_leaf), alone)
    assert_equal(interpolate(g, r, 0.0), r)


# --- in the ways that it is called

DEPTHS = {None: ["body/bias", "body/kernel", "head"], 1: ["body", "head"], -1: ["body"], 0: []}


@pytest.mark.parametrize(("depth", "paths"), DEPTHS.items())
def test_paths_of_one_name_are_one_entry_and_the_total_does_not_depend_on_the_depth(depth, paths):
    g, r, _ = gradients()
    report, total = conflict_report(g, r, depth=depth), conflict_report(g, r, depth=0)
    assert [n.removeprefix("cosine/") for n in report if n.startswith("cosine/")] == paths
    assert_equal({name: report[name] for name in total}, total)
    if "body" in paths:
        assert float(report["reg_norm/body"]) == pytest.approx(norm(r["body"]), rel=1e-6)


def test_the_anchor_may_lie_in_the_containers_of_an_nnx_optimizer_or_have_another_head():
    start, other = (nnx.Linear(n, 3, rngs=nnx.Rngs(0)) for n in (2, 5))
    params, mask = jax.tree.map(lambda x: x + 1, nnx.state(start)), all_but("bias")
    tx = add_l2_sp(0.1, mask=mask, anchor=jax.tree.map(jnp.zeros_like, params))
    anchor = optax.tree.get(nnx.Optimizer(start, tx, wrt=nnx.Param).opt_state, "anchor")
    report = conflict_report(params, params, anchor=anchor)
    assert report["reg_norm"] == report["loss_norm"] == norm(params["kernel"])
    assert_equal(interpolate(params, anchor, 0.5)["kernel"][...], params["kernel"][...] / 2)
    mixed = interpolate(params, nnx.state(other), 0.0, mask=all_but("kernel"))
    assert_equal(mixed["kernel"][...], params["kernel"][...])
    assert not mixed["bias"][...].any()


@pytest.mark.parametrize("labels", [None, per_element])
def test_it_is_the_same_without_jit_in_narrow_dtypes_and_under_strict_promotion(labels):
    (g, _, start), (_, r, _) = gradients("bfloat16"), gradients()
    report = functools.partial(conflict_report, weight=0.5, labels=labels)
    with jax.numpy_dtype_promotion("strict"):
        eager, jitted = report(g, r, anchor=start), jax.jit(report)(g, r, anchor=start)
    assert_close(jitted, eager)
    assert {(x.dtype, x.shape) for x in eager.values()} == {(jnp.dtype("float32"), ())}
    assert_close(eager, report(cast(g, "float32"), r, anchor=cast(start, "float32")))


def test_nan_stays_visible_and_zeros_have_a_meaning():
    g, r, _ = gradients()
    bad, zero = r | {"head": r["head"].at[0, 0].set(jnp.nan)}, optax.tree.zeros_like(g)
    names = ("cosine", "removed", "ratio")
    for trees in ((g, bad), (bad, g), (g, g, bad)):
        report = jax.jit(lambda g, r, anchor=None: conflict_report(g, r, anchor=anchor))(*trees)
        assert all(jnp.isnan(report[name]) for name in names)
    assert conflict_report(zero, r)["ratio"] == np.inf
    assert not any(conflict_report(g, zero)[name] for name in (*names, "conflict"))
    assert not any(conflict_report({}, {}).values())
