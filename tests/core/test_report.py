"""The report by path: next to NumPy, to the states, and in the ways that it is called."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

from optax_dtnh import (
    Along,
    add_l2_sp,
    capped,
    conflict_report,
    drop,
    dtnh,
    per_channel,
    per_element,
    per_leaf,
    truncate,
)
from tests.core.helpers import assert_close, assert_equal, cast, norm, random_tree
from tests.core.strategies import STRUCTURES, cases
from tests.core.test_properties import by_index, refute, third, whole, wide

SHAPES = {"body": {"kernel": (3, 4), "bias": (4,)}, "head": (4, 2)}
BODY = {"body": True, "head": False}


def gradients(dtype="float32"):
    rng = np.random.default_rng(3)
    return [cast(random_tree(SHAPES, rng), dtype) for _ in range(3)]


# --- next to NumPy


def truncated(r, m):
    along = min(r @ m, 0.0) / (m @ m or 1.0)
    return r - along * m


def elements(r, m):
    return np.where(r * m < 0, 0.0, r)


def by_hand(g, r, label, indices, weight):
    """The entries of some leaves in float64; with no label, each element decides."""
    g, r = ([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(t)] for t in (g, r))
    joined = lambda leaves, some: np.concatenate([np.zeros(0), *(leaves[i] for i in some)])  # noqa: E731
    kept, margins = [], {}
    for i in range(len(r)):
        group = [j for j in range(len(r)) if label and label(j) == label(i)] or [i]
        r_all, g_all = joined(r, group), joined(g, group)
        new = truncated(r_all, g_all) if label else elements(r_all, g_all)
        start = sum(r[j].size for j in group if j < i)
        kept.append(new[start : start + r[i].size])
        if i in indices:
            sizes = np.linalg.norm(r_all) * np.linalg.norm(g_all)
            margins[label(i) if label else i] = (
                [(r_all @ g_all, 1e-5 * sizes)] if label else [(x, 0) for x in r_all * g_all]
            )
    of_g, of_r, of_kept = (joined(x, indices) for x in (g, r, kept))
    sizes = [np.linalg.norm(x) for x in (of_g, of_r, of_kept, of_r - of_kept)]
    dots = [d for group in margins.values() for d in group] or [(0.0, 0.0)]
    return {
        "cosine": of_r @ of_g / (sizes[0] * sizes[1] or 1.0),
        "loss_norm": sizes[0],
        "reg_norm": sizes[1],
        "removed": (sizes[3] / (sizes[1] or 1.0)) ** 2,
        "ratio": weight * sizes[2] / (sizes[0] or 1.0) if sizes[0] or not sizes[2] else np.inf,
        "conflict": tuple(np.mean([d < edge * s for d, s in dots]) for edge in (-1, 1)),
    }


def is_that_of_numpy(way, case):
    report, label = way
    with wide(case.structure):
        found = report(case.g, case.r, case.weight)
    named = {f"/{name}": [i] for i, name in enumerate(NAMES[case.structure]) if name}
    for path, indices in {"": range(len(NAMES[case.structure])), **named}.items():
        expected = by_hand(case.g, case.r, label, indices, case.weight)
        low, high = expected.pop("conflict")
        assert low - 1e-6 <= found[f"conflict{path}"] <= high + 1e-6
        for name, value in expected.items():
            # What is left of `r` by cancellation is known to the rounding of `r` and its decision.
            of_r = expected["reg_norm"] / (expected["loss_norm"] or 1.0)
            slack = {"ratio": 1e-5 * case.weight * of_r, "cosine": 1e-5, "removed": 1e-5}
            slack = slack.get(name, 0.0) + 1e-5 * abs(value)
            assert value == found[name + path] or abs(value - found[name + path]) <= slack, name


def names(tree):
    paths = [path for path, _ in jax.tree.leaves_with_path(tree)]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]


NAMES = {structure: names(tree) for structure, tree in STRUCTURES.items()}
WAYS = {  # the labels, and the label of a leaf by its index
    "whole tree": (None, whole),
    "per leaf": (per_leaf, int),
    "labels": (by_index(third), third),
    "per element": (per_element, None),
}
compiled = {
    name: jax.jit(
        lambda g, r, weight, labels=labels: conflict_report(g, r, weight=weight, labels=labels)
    )
    for name, (labels, _) in WAYS.items()
}


@pytest.mark.parametrize("name", WAYS)
@given(case=cases(("nested", "layers", "array", "unlike")))
def test_the_report_is_that_of_numpy(name, case):
    is_that_of_numpy((compiled[name], WAYS[name][1]), case)


@pytest.mark.parametrize(("name", "other"), [("whole tree", int), ("per leaf", whole)])
def test_a_search_finds_that_the_report_of_other_decisions_is_another(name, other):
    refute(is_that_of_numpy, (compiled[name], other), cases(("layers",)))


# --- next to the states

LABELS = {
    "whole tree": None,
    "per leaf": per_leaf,
    "labels": {"body": {"kernel": "a", "bias": "b"}, "head": "a"},
    "channels": {"body": {"kernel": Along((-1,)), "bias": "b"}, "head": Along((0,))},
}


@pytest.mark.parametrize("rule", [truncate, drop, capped(truncate, 0.1)])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_the_report_agrees_with_the_state_and_the_update_of_a_pair(labels, rule):
    g, r, _ = gradients()
    tx = dtnh(0.5, mask=BODY, rule=rule, labels=labels)
    update, state = tx.update((g, r), tx.init(g))
    report = conflict_report(g, r, weight=0.5, mask=BODY, rule=rule, labels=labels)
    assert report["conflict"] == state.conflict
    part = jax.tree.map(jnp.subtract, update, g)
    ratio = norm(part) / norm(g["body"])
    assert float(report["ratio"]) == pytest.approx(ratio, rel=1e-5)
    assert not [name for name in report if "head" in name]


@pytest.mark.parametrize("mask", [BODY, None], ids=["body", "all"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_the_report_agrees_with_the_state_of_an_anchor_behind_an_averaged_reference(labels, mask):
    g, params, start = gradients()
    average = optax.ema(0.9, accumulator_dtype=jnp.float32)
    tx = optax.chain(
        add_l2_sp(0.5, mask=mask, reference=average, labels=labels), optax.sgd(0.1, momentum=0.9)
    )

    @jax.jit
    def step(g, state, params):
        _, state = tx.update(g, state, params)
        anchor, m = (optax.tree.get(state, name) for name in ("anchor", "ema"))
        return state, conflict_report(g, params, anchor=anchor, reference=m, labels=labels)

    state, away = tx.init(start), jax.tree.map(jnp.subtract, params, start)
    for gradient in (g, optax.tree.scale(-0.5, g), optax.tree.scale(0.1, away)):
        state, report = step(gradient, state, params)
        assert report["conflict"] == optax.tree.get(state, "conflict")
        distance = norm(away if mask is None else away["body"])
        assert float(report["reg_norm"]) == pytest.approx(distance, rel=1e-6)
        assert ("cosine/head" in report) == (mask is None)


def test_a_decision_of_channels_and_elements_counts_each_of_them():
    g, r = ({"kernel": jnp.ones((2, 4)), "bias": s * jnp.ones(4)} for s in (1.0, -1.0))
    report = conflict_report(g, r, labels=per_channel)
    assert [report[name] for name in ("conflict/kernel", "conflict/bias", "conflict")] == [
        0,
        1,
        0.5,
    ]
    assert [report[f"removed/{name}"] for name in g] == [0, 1]


# --- in the ways that it is called


def test_the_squares_of_the_paths_add_up_to_the_total_at_every_depth():
    g, r, _ = gradients()
    whole_tree = conflict_report(g, r)
    for depth, paths in {
        None: ["body/bias", "body/kernel", "head"],
        1: ["body", "head"],
        -1: ["body"],
        0: [],
    }.items():
        report = conflict_report(g, r, depth=depth)
        assert [n.removeprefix("cosine/") for n in report if n.startswith("cosine/")] == paths
        assert_equal(*({k: t[k] for k in t if "/" not in k} for t in (report, whole_tree)))
        if paths not in ([], ["body"]):
            for name in ("loss_norm", "reg_norm"):
                squares = sum(report[f"{name}/{path}"] ** 2 for path in paths)
                np.testing.assert_allclose(squares, report[name] ** 2, rtol=1e-6)
            gone = sum(report[f"removed/{p}"] * report[f"reg_norm/{p}"] ** 2 for p in paths)
            total = report["removed"] * report["reg_norm"] ** 2
            np.testing.assert_allclose(gone, total, rtol=1e-6)


@pytest.mark.parametrize("labels", [None, per_leaf, per_element])
def test_it_is_the_same_without_jit_in_narrow_dtypes_and_under_strict_promotion(labels):
    g, r, start = gradients("bfloat16")
    r = cast(r, "float32")
    report = functools.partial(conflict_report, weight=0.5, labels=labels)
    with jax.numpy_dtype_promotion("strict"):
        eager, jitted = report(g, r, anchor=start), jax.jit(report)(g, r, anchor=start)
    assert_close(jitted, eager)
    assert {(x.dtype, x.shape) for x in eager.values()} == {(jnp.dtype("float32"), ())}
    assert_close(eager, report(cast(g, "float32"), r, anchor=cast(start, "float32")))


def test_nothing_bad_disappears_and_zeros_have_a_meaning():
    g, r, _ = gradients()
    bad = r | {"head": r["head"].at[0, 0].set(jnp.nan)}
    for report in (
        conflict_report(g, bad),
        conflict_report(bad, g),
        conflict_report(g, g, anchor=bad),
    ):
        assert jnp.isnan(jnp.array([report[name] for name in ("cosine", "removed", "ratio")])).all()
    zero = optax.tree.zeros_like(g)
    assert conflict_report(zero, r)["ratio"] == np.inf
    silent = conflict_report(g, zero)
    assert [silent[name] for name in ("cosine", "removed", "ratio", "conflict")] == [0.0] * 4
    assert not any(conflict_report({}, {}).values())
