"""Every named property, searched by Hypothesis for every rule and combinator, and refuted too.

`make test` runs a short search; `HYPOTHESIS_PROFILE=long` a long one with new examples each time.
"""

import functools
from random import Random
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from optax_dtnh import (
    GradientPair,
    add_l2_sp,
    apply_rule,
    cosine,
    drop,
    dtnh,
    orthogonal,
    per_leaf,
    plain,
    transform_pair,
    truncate,
)
from tests.core.helpers import assert_equal, norm, vector
from tests.core.strategies import STRUCTURES, cases, moved


class Result(NamedTuple):
    """What comes out, and what goes into `update = u + weight * r'`, with `m` protected."""

    update: Any
    u: Any
    r: Any
    m: Any
    weight: Any
    conflict: Any = None


class Way(NamedTuple):
    """One way to an update, its rule, and which leaves share a decision."""

    run: Any  # (g, r, before, params, weight) -> Result
    rule: Any
    label: Any  # of a leaf's index; None is left out of every decision


def whole(i):
    return 0


def half(dot, ref_sq, reg_sq):
    """A rule of the user's own."""
    return 0.5, jnp.minimum(dot, 0.0) / 2


def applied(rule):
    def run(g, r, before, params, weight):
        return Result(apply_rule(rule, r, g), optax.tree.zeros_like(r), r, g, 1.0)

    return Way(run, rule, whole)


def second(tx, before, now):
    """The transformation's second update, so that what it carries counts."""
    _, state = tx.update(before, tx.init(now), now)
    return tx.update(now, state, now)[0]


def through_dtnh(rule=None, label=whole, inner=None, reference=None, pair=False, **options):
    stateful = inner or reference
    inner, reference = inner or optax.identity(), reference or optax.identity()

    def run(g, r, before, params, weight):
        tx = dtnh(weight, rule=rule, inner=inner, reference=reference, **options)

        def update(g, state):
            if pair:
                return tx.update(GradientPair(g, r), state, g)
            return tx.update(g, state, g, reg_grads=r)

        state = tx.init(g)
        if stateful:
            _, state = update(before, state)
        u, m = second(inner, before, g), second(reference, before, g)
        out, state = update(g, state)
        return Result(out, u, r, m, weight, state.conflict)

    return Way(run, rule or truncate, label)


def through_l2_sp(rule=None, label=whole, inner=None, f=1.0, **options):
    """`add_l2_sp` with `before` as the starting point and `params`, `r` away from it."""

    def run(g, r, before, params, weight):
        inside = inner(weight) if inner else optax.identity()
        outside = {"anchor": before, "importance": jax.tree.map(lambda x: jnp.full_like(x, f), g)}
        tx = add_l2_sp(weight, rule=rule, inner=inside, **(outside if f != 1 else {}), **options)
        extra = {"reg_grads": r} if inner else {}
        update, state = tx.update(g, tx.init(params if f != 1 else before), params, **extra)
        u, _ = optax.with_extra_args_support(inside).update(g, inside.init(g), params, **extra)
        pulled = jax.tree.map(lambda a, b: f * (_wide(a) - _wide(b)), params, before)
        return Result(update, u, pulled, g, weight, state.dtnh.conflict)

    return Way(run, rule or truncate, label)


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def through_transform_pair(rule):
    loss, reg = optax.trace(0.9), optax.trace(0.5)

    def run(g, r, before, params, weight):
        tx = optax.chain(transform_pair(loss, reg), dtnh(weight, rule=rule))
        _, state = tx.update((before, r), tx.init(g), g)
        update, state = tx.update((g, r), state, g)
        g, r = second(loss, before, g), second(reg, r, r)
        return Result(update, g, r, g, weight, state[1].conflict)

    return Way(run, rule, whole)


def by_index(value):
    """A mask or labels: the value of each leaf's index."""

    def tree_of(tree):
        leaves, structure = jax.tree.flatten(tree)
        return structure.unflatten([value(i) for i in range(len(leaves))])

    return tree_of


def is_even(i):
    return i % 2 == 0


def only_even(i):
    return 0 if is_even(i) else None


def third(i):
    return i % 3


RULES = {rule.__name__: applied(rule) for rule in (truncate, orthogonal, drop, cosine, plain, half)}
COMBINATORS = {
    "dtnh, a pair": through_dtnh(pair=True),
    "dtnh, inner, reference": through_dtnh(
        inner=optax.scale_by_lion(), reference=optax.ema(0.9, accumulator_dtype=jnp.float32)
    ),
    "dtnh, labels": through_dtnh(drop, labels=by_index(third), label=third),
    "dtnh, per leaf": through_dtnh(orthogonal, labels=per_leaf, label=int),
    "add_l2_sp": through_l2_sp(),
    "add_l2_sp around dtnh, mask": through_l2_sp(
        cosine, inner=dtnh, mask=by_index(is_even), label=only_even
    ),
    "add_l2_sp, anchor and importance": through_l2_sp(f=0.25),
    "transform_pair": through_transform_pair(truncate),
}
WAYS = RULES | COMBINATORS


def wide(name):
    return jax.enable_x64(name == "float64")


@functools.cache
def compiled(way):
    return jax.jit(way.run)


def out_of(way, case, **changes):
    case = case._replace(**changes)
    params, weight = moved(case.before, case.r), np.float32(case.weight)
    with wide(case.structure):
        return compiled(way)(case.g, case.r, case.before, params, weight)


# The bound of `dtnh`'s docstring: k * eps * |m| * (|u| + weight |r|), in units of the coarsest eps.
K = {"float64": 32, "float32": 32, "bfloat16": 1, "float16": 1}


class Decision(NamedTuple):
    """The leaves that share a decision, as float64 vectors: `part = weight * r'` was added."""

    part: Any
    r: Any  # times the weight
    m: Any
    eps: float  # relative to the norms
    slack: float  # how far `part` may be off


def decisions(way, result):
    trees = [jax.tree.leaves(t) for t in (result.update, result.u, result.r, result.m)]
    indices = range(len(trees[0]))
    labels = {way.label(i) for i in indices} - {None}
    for label in sorted(labels):
        members = [[t[i] for i in indices if way.label(i) == label] for t in trees]
        update, u, r, m = map(vector, members)
        r = float(result.weight) * r
        size = np.linalg.norm(u) + np.linalg.norm(r)
        eps = rounding(*members)
        yield Decision(update - u, r, m, eps, eps * size)


def rounding(*members):
    dtypes = {x.dtype for leaves in members for x in leaves}
    return max(K[d.name] * float(jnp.finfo(d).eps) for d in dtypes)


def in_float64(rule, r, m):
    """The formula of the docstrings, written without the library."""
    dot, m2, sizes = r @ m, m @ m, norm(r) * norm(m)
    along = dot / m2 if m2 else 0.0
    cos = dot / sizes if sizes else 0.0
    return {
        "truncate": lambda: r - min(along, 0) * m,
        "orthogonal": lambda: r - along * m,
        "drop": lambda: r if dot >= 0 else 0 * r,
        "cosine": lambda: max(cos, 0) * r,
        "plain": lambda: r,
        "half": lambda: (r - min(along, 0) * m) / 2,
    }[rule.__name__]()


def never_opposes_the_reference(way, case):
    for d in decisions(way, out_of(way, case)):
        assert d.part @ d.m >= -d.slack * norm(d.m)


def is_the_formula(way, case):
    for d in decisions(way, out_of(way, case)):
        off = norm(d.part - in_float64(way.rule, d.r, d.m))
        if may_go_either_way(way, d):
            off = min(norm(d.part), norm(d.part - d.r))
        assert off <= d.slack


def may_go_either_way(way, d):
    """Whether rounding may turn all of `r` into nothing."""
    return way.rule is drop and abs(d.r @ d.m) <= d.slack * norm(d.m)


def is_the_nearest_point_of_the_half_space(way, case):
    """The KKT conditions of `argmin |x - r|^2` subject to `<x, m> >= 0`."""
    for d in decisions(way, out_of(way, case)):
        size = norm(d.m)
        unit = d.m / size if size else d.m
        moved = d.part - d.r
        multiplier = moved @ unit
        assert d.part @ unit >= -d.slack  # feasible
        assert multiplier >= -d.slack  # dual feasible
        assert norm(moved - multiplier * unit) <= d.slack  # stationary
        assert min(multiplier, d.part @ unit) <= d.slack  # complementary


def is_exactly_the_regularizer_without_conflict(way, case):
    result = out_of(way, case)
    for d in decisions(way, result):
        if d.r @ d.m > d.slack * norm(d.m) or not d.m.any():
            identical(result.update, case.r)


def is_exactly_the_inner_update_where_nothing_is_added(way, case):
    for changes in ({}, {"weight": 0.0}, {"r": scaled(0.0, case.r)}):
        result = out_of(way, case, **changes)
        leaves = zip(jax.tree.leaves(result.update), jax.tree.leaves(result.u), strict=True)
        for i, (update, u) in enumerate(leaves):
            if changes or way.label(i) is None:
                identical(update, u)


def identical(one, two):
    with jax.enable_x64(True):
        assert_equal(one, two)


def reports_the_share_in_conflict(way, case):
    result = out_of(way, case)
    found = [*decisions(way, result._replace(weight=1.0))]
    margins = [d.eps * norm(d.r) * norm(d.m) for d in found]
    surely = np.mean([d.r @ d.m < -margin for d, margin in zip(found, margins, strict=True)])
    perhaps = np.mean([d.r @ d.m < margin for d, margin in zip(found, margins, strict=True)])
    assert surely - 1e-6 <= result.conflict <= perhaps + 1e-6


def scaled(factor, tree):
    return jax.tree.map(lambda x: (factor * x).astype(x.dtype), tree)


def keeps_structure_and_dtypes(way, case):
    update, like = out_of(way, case).update, case.r if way in RULES.values() else case.g
    assert jax.tree.structure(update) == jax.tree.structure(like)
    for x, y in zip(jax.tree.leaves(update), jax.tree.leaves(like), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)


def lets_nothing_bad_disappear(way, case):
    """NaN or infinity in one element reaches every element that shares the decision."""
    value, where, element = case.bad
    leaves, structure = jax.tree.flatten(getattr(case, where))
    ends = np.cumsum([x.size for x in leaves])
    if not ends[-1]:
        return
    i = int(np.searchsorted(ends, element, side="right"))
    leaves[i] = leaves[i].copy()
    leaves[i].flat[element - ends[i]] = value
    update = jax.tree.leaves(out_of(way, case, **{where: structure.unflatten(leaves)}).update)
    for j, leaf in enumerate(update):
        shared = way.label(j) == way.label(i) is not None
        assert not shared or not np.isfinite(np.asarray(leaf, np.float64)).any()


def added(g, r, before, params, weight):
    return Result(jax.tree.map(lambda x, y: x + weight * y, g, r), g, r, g, weight)


def selected(g, r, before, params, weight):
    keep = optax.tree.vdot(r, g) >= 0
    update = jax.tree.map(lambda y: jnp.where(keep, y, 0.0), r)
    return Result(update, optax.tree.zeros_like(r), r, g, 1.0)


def naive(g, r, before, params, weight):
    along = jnp.minimum(optax.tree.vdot(r, g), 0.0) / optax.tree.vdot(g, g)
    return Result(r - along * g, jnp.zeros_like(r), r, g, 1.0)


WRONG = {
    "naive": Way(naive, truncate, whole),
    "orthogonal taken for truncate": RULES["orthogonal"]._replace(rule=truncate),
    "none left out": COMBINATORS["dtnh, a pair"]._replace(label=only_even),
    "one label for all": COMBINATORS["dtnh, per leaf"]._replace(label=whole),
    "added": Way(added, plain, whole),
    "selected": Way(selected, drop, whole),
}


ALL = [*RULES, *COMBINATORS]
TRUNCATING = [name for name in WAYS if WAYS[name].rule is truncate]
PROTECTING = [name for name in ALL if name != "plain"]

HOLDS = {
    never_opposes_the_reference: PROTECTING,
    is_the_formula: ALL,
    is_the_nearest_point_of_the_half_space: TRUNCATING,
    is_exactly_the_regularizer_without_conflict: ["truncate", "drop", "plain"],
    is_exactly_the_inner_update_where_nothing_is_added: COMBINATORS,
    reports_the_share_in_conflict: COMBINATORS,
    lets_nothing_bad_disappear: ALL,
    keeps_structure_and_dtypes: ALL,
}
REFUTED = {
    never_opposes_the_reference: ["plain"],
    is_the_formula: ["orthogonal taken for truncate"],
    is_the_nearest_point_of_the_half_space: [name for name in RULES if name not in TRUNCATING],
    is_exactly_the_regularizer_without_conflict: ["orthogonal", "cosine", "half"],
    is_exactly_the_inner_update_where_nothing_is_added: ["none left out"],
    reports_the_share_in_conflict: ["one label for all"],
    lets_nothing_bad_disappear: ["selected"],
    keeps_structure_and_dtypes: ["added"],
}


def by_rows(table):
    rows = [
        pytest.param(prop, n, id=f"{n}: {prop.__name__}") for prop in table for n in table[prop]
    ]
    return pytest.mark.parametrize(("prop", "name"), rows)


# Each structure is compiled or run anew: the short search stays on some of them.
is_short = settings.get_current_profile_name() == "short"
SOME = ("nested", "nothing", "mixed", "float64", "unlike")


@by_rows(HOLDS)
@settings(max_examples=12 if is_short else settings.default.max_examples)
@given(data=st.data())
def test_the_property_holds(prop, name, data):
    prop(WAYS[name], data.draw(cases(tuple(SOME if is_short else STRUCTURES))))


# Where nothing overflows, so that no NaN is taken for a counterexample.
CALM = ("array", "layers", "nested", "unlike")


@by_rows(REFUTED)
def test_a_search_finds_that_the_property_fails(prop, name):
    refute(prop, (WAYS | WRONG)[name], cases(CALM))


def refute(prop, subject, cases):
    """Find a case for which the property fails, or raise."""

    def fails(case):
        try:
            prop(subject, case)
        except AssertionError:
            return True
        return False

    one_pass = settings(max_examples=300, phases=[Phase.generate])
    find(cases, fails, settings=one_pass, random=Random(0))
