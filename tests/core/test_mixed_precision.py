"""Mixed precision: the recipes run, the decision is the float64 one, rounding is where it says."""

import functools
import re

import jax
import jax.numpy as jnp
import jmp
import numpy as np
import optax
import pytest

from optax_dtnh import add_l2_sp, cosine_similarity, dtnh
from tests.core.helpers import assert_equal, dot, minus, norm
from tests.pages.pages import ROOT, blocks, execute, side

PAGE = "docs/mixed_precision.md"
LOOP, TABLE = blocks(PAGE, "python")
MASTERS, PURE, WIDE_UPDATE, SCALED = blocks(PAGE, "diff")
EPS = float(jnp.finfo(jnp.float32).eps)


def patched(program, diff):
    """The program after a diff whose hunks each fit in one place."""
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        before, after = side(hunk, "-"), side(hunk, "+")
        assert program.count(f"\n{before}\n") == 1, before
        program = program.replace(f"\n{before}\n", f"\n{after}\n")
    return program


# A program, the dtype it computes in, that of parameters and anchor, and that of the momentum.
RECIPES = {
    "float32": (LOOP, "float32", "float32", "float32"),
    "masters": (patched(LOOP, MASTERS), "bfloat16", "float32", "float32"),
    "pure": (patched(LOOP, PURE), "bfloat16", "bfloat16", "bfloat16"),
    "wide update": (patched(patched(LOOP, PURE), WIDE_UPDATE), "bfloat16", "bfloat16", "float32"),
    "scaled": (patched(LOOP, SCALED), "float16", "float32", "float32"),
}


@functools.cache
def ran(recipe):
    """What a recipe defines."""
    return execute(RECIPES[recipe][0], PAGE, {"jmp": jmp})


def dtypes(tree):
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_learns_in_the_dtypes_that_it_names(recipe):
    names, (_, computed, stored, momentum) = ran(recipe), RECIPES[recipe]
    first, last = ([float(value) for value in names["history"][i]] for i in (0, -1))
    assert last[0] < 0.75 * first[0]
    assert 0.1 < last[1] < 0.3  # the regularizer's value is unscaled as well
    assert names["net"].dtype == jnp.dtype(computed)
    assert dtypes(names["params"]) == dtypes(names["state"][0].anchor) == {stored}
    assert dtypes(optax.tree.get(names["state"], "trace")) == {momentum}


@pytest.mark.slow
@pytest.mark.parametrize("scale", [jmp.DynamicLossScale, jmp.StaticLossScale])
def test_a_step_out_of_range_is_skipped_whole_and_one_within_moves_everything(scale):
    names = ran("scaled")
    old = tuple(names[name] for name in ("params", "stats", "state"))
    for size, skipped in ((2.0**60, True), (2.0**15, False)):
        arguments = names["x"], names["y"], jax.random.key(0), scale(jnp.float32(size))
        *new, _, after = names["step"](*old, *arguments)
        if skipped:
            assert_equal(tuple(new), old)
        else:
            assert all(norm(minus(*trees)) > 0 for trees in zip(new[:2], old[:2], strict=True))
        halved = skipped and scale is jmp.DynamicLossScale
        assert after.loss_scale == (size / 2 if halved else size)


def test_small_steps_vanish_in_bfloat16_parameters_and_so_does_the_pull_of_l2_sp():
    assert optax.apply_updates(jnp.bfloat16(1), jnp.bfloat16(-1 / 513)) == 1
    assert optax.apply_updates(jnp.bfloat16(1), jnp.bfloat16(-1 / 500)) < 1

    def pulled(dtype, lr_times_weight, **options):
        """The share of parameters that move, all within a factor of two of the anchor."""
        anchor = 1 + jnp.arange(128, dtype=dtype) / 128
        tx = optax.chain(add_l2_sp(lr_times_weight, **options), optax.sgd(1.0))
        params, state = 2 * anchor, tx.init(anchor)
        updates, _ = tx.update(jnp.zeros(128, dtype), state, params)
        return float(jnp.mean(optax.apply_updates(params, updates) != params))

    assert pulled("float32", 0.001) == 1
    assert pulled("bfloat16", 0.001) == 0 == pulled("bfloat16", 0.001, anchor_dtype=jnp.float32)
    assert pulled("bfloat16", 0.02) == 1


def test_adam_hides_a_scale_in_both_only_while_it_stands_still():
    tx, g = optax.chain(dtnh(0.1), optax.scale_by_adam()), jnp.array([1.0, -0.5])

    def step(state, scale):
        updates, state = tx.update((scale * g, scale * g), state)
        return state, jnp.linalg.norm(updates)

    scales = 2.0**15 * jnp.repeat(jnp.array([1.0, 2.0]), jnp.array([5000, 100]))
    sizes = jax.lax.scan(step, tx.init(g), scales)[1]
    assert float(sizes[5000:].max() / sizes[4999]) == pytest.approx(1.88, abs=0.01)
    assert float(sizes[4999] / sizes[0]) == pytest.approx(1, abs=0.01)


BAND = 32 * EPS


SHAPES = {
    "network": [(7, 7, 3, 64), (64,), (3, 3, 64, 128), (64, 4, 16), (300, 70), (64, 10), ()],
    "many leaves": [(600,)] * 20,
    "ten million": [(3, 3, 1024, 1024), (512_000,), (1000, 50)],
}
DTYPES = {name: [name] for name in ("float32", "bfloat16", "float16")}
DTYPES["mixed"] = [*DTYPES]


def leaves_of(flat, shapes, dtypes):
    parts = np.split(flat, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
    return [
        jnp.asarray(part.reshape(shape), dtypes[i % len(dtypes)])
        for i, (part, shape) in enumerate(zip(parts, shapes, strict=True))
    ]


def near_ties(shapes, dtypes):
    """Gradients, and their cosine in float64 after rounding to the dtypes.

    Products of one sign, then of the other: the partial sums are as large as they get.
    """
    n = sum(int(np.prod(shape)) for shape in shapes)
    g, h = abs(np.random.default_rng(0).standard_normal((2, n)))
    h *= np.sign(n // 2 - np.arange(n))
    h -= (h @ g) / (g @ g) * g
    for bands in (-100, -10, -2, 2, 10, 100):
        tied = h + bands * BAND * norm(h) / norm(g) * g
        trees = [leaves_of(v, shapes, dtypes) for v in (g, tied)]
        yield *trees, dot(*trees) / (norm(trees[0]) * norm(trees[1]))


@jax.jit
def decide(g, r):
    tx = dtnh(1.0)
    _, state = tx.update((g, r), tx.init(g))
    return optax.tree.get(state, "conflict"), cosine_similarity(g, r)


LARGEST = pytest.param("ten million", marks=pytest.mark.slow)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", ["network", "many leaves", LARGEST])
def test_the_decision_is_the_float64_one_outside_a_band_of_32_float32_eps(dtype, shapes):
    for g, r, expected in near_ties(SHAPES[shapes], DTYPES[dtype]):
        conflict, cosine = decide(g, r)
        assert abs(expected) < BAND or conflict == (expected < 0)
        assert abs(float(cosine) - expected) < BAND / 8


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_decision_in_the_gradients_dtype_would_fail_far_outside_the_band(dtype):
    ties = [*near_ties(SHAPES["many leaves"], [dtype])]
    assert min(abs(expected) for *_, expected in ties) < 10 * BAND
    assert any(
        (optax.tree.vdot(g, r) < 0) != (expected < 0)
        for g, r, expected in ties
        if abs(expected) > 10 * BAND
    )


def test_the_table_of_the_rounded_result_is_what_its_block_prints():
    names = execute(TABLE, PAGE)
    rows = re.findall(r"^\| (float32|b?float16) \| (.*) \|$", (ROOT / PAGE).read_text(), re.M)
    assert len(rows) == 3
    for dtype, row in rows:
        said = [float(cell) for cell in row.replace("\N{MINUS SIGN}", "-").split(" | ")]
        k = 32 if dtype == "float32" else 1  # as in the docstring of dtnh
        found = [names["kept"](dtype, ratio) for ratio in (1, 1e1, 1e2, 1e3, 1e4, 1e5)]
        assert found == pytest.approx(said, rel=0.03, abs=0.006)
        for ratio, value in zip((1, 1e1, 1e2, 1e3, 1e4, 1e5), found, strict=True):
            assert value >= 1 - (1 + ratio) * k * float(jnp.finfo(dtype).eps)
