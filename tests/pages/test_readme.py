"""The README: its code runs, its diffs lead from one working program to another."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_dtnh
from optax_dtnh import regularizers
from tests.pages.pages import ROOT, blocks, execute, side

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def namespace():
    """What all Python blocks together define."""
    return execute("\n".join(blocks("README.md", "python")), "README.md")


def test_python_blocks_run_and_the_example_learns(namespace):
    assert len(blocks("README.md", "python")) == 1
    pretrained, x, y = (namespace[name] for name in ("pretrained", "x", "y"))
    assert namespace["loss"] < 0.9 * namespace["losses"](pretrained, pretrained, x, y)[0]


def test_the_loop_before_and_after_the_diff_runs_and_the_diff_is_short(namespace):
    names = vars(optax_dtnh) | vars(regularizers) | namespace
    diff = blocks("README.md", "diff")[0]
    ends = []
    for sign in "-+":
        program = execute(side(diff, sign), "README.md", names)
        params, state = names["pretrained"], program["tx"].init(names["pretrained"])
        for _ in range(3):
            args = (names[name] for name in ("pretrained", "x", "y"))
            params, state = program["step"](params, state, *args)
        ends.append(params)
    assert jax.tree.structure(ends[0]) == jax.tree.structure(ends[1])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(ends))
    assert len(diff.splitlines()) < 15


def test_the_anchoring_diff_runs(namespace):
    names = vars(optax_dtnh) | namespace
    for sign in "-+":
        tx = execute(side(blocks("README.md", "diff")[1], sign), "README.md", names)["tx"]
        params, grads = names["pretrained"], optax.tree.ones_like(names["pretrained"])
        updates, _ = tx.update(grads, tx.init(params), params)
        assert jax.tree.structure(updates) == jax.tree.structure(grads)


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)", "\n".join(blocks("README.md", "sh")))) <= targets


def test_public_names_in_the_readme_exist():
    called = set(re.findall(r"`(\w+)\(", README))
    known = {"max", "inner", *optax_dtnh.__all__, *dir(regularizers)}
    assert called <= known, called - known


def test_it_is_short():
    """Counted in words, tables and code included."""
    assert len(README.split()) <= 1300
