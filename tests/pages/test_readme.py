"""The README: its code runs, its diffs lead from one working program to another."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_dtnh
from benchmarks.digits import __main__ as digits
from benchmarks.digits import table
from benchmarks.harness import record
from benchmarks.harness.statistics import paired_difference
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
        program = execute(side(blocks("README.md", "diff")[1], sign), "README.md", names)
        state = program["tx"].init(names["pretrained"])
        grads = optax.tree.ones_like(names["pretrained"])
        updates, _ = program["tx"].update(grads, state, names["pretrained"])
        assert jax.tree.structure(updates) == jax.tree.structure(grads)


@pytest.fixture(scope="module")
def results():
    """The committed record of the digits benchmark."""
    return record.read(ROOT / "benchmarks" / "results" / "digits.json")


def test_the_table_is_the_one_of_the_committed_record(results):
    assert table.markdown(results) in README
    assert f"n = {len(results['seeds'])}" in README


def test_nothing_in_the_table_beats_both_baselines_by_much(results):
    def mean(cell, method, weight):
        return record.values(results, cell["name"], method, weight, "accuracy").mean()

    gains = [
        mean(cell, method["name"], weight)
        - max(mean(cell, method["baseline"], weight), mean(cell, "fine-tuning", weight))
        for method in results["methods"]
        if method["baseline"]
        for cell in results["cells"]
        for weight in results["weights"]
    ]
    assert len(gains) == 24
    assert 1.0 < max(gains) < 1.5  # "more than about a point"


def test_the_differences_in_the_header_of_the_benchmark_are_those_of_the_record(results):
    header = " ".join((digits.__doc__ or "").split())
    for method in results["methods"]:
        for cell in results["cells"] if method["baseline"] else []:
            pair = [
                record.values(results, cell["name"], name, 10.0, "accuracy")
                for name in (method["name"], method["baseline"])
            ]
            assert paired_difference(*pair).signed().replace("±", "+-") in header


def test_the_shares_that_raise_the_loss_are_those_of_the_committed_record():
    rows = record.read(ROOT / "benchmarks" / "results" / "guarantee.json")["rows"]
    share = {
        (row["form"], row["optimizer"]): row["raised"]
        for row in rows
        if row["exists"] and (row["dtype"], row["range"]) == ("float32", "ordinary")
    }
    before, inside = "`dtnh` before it", "as `inner`"
    behind = [f"{100 * share[before, name]:.0f} %" for name in ("momentum", "adam")]
    text = " ".join(README.split())
    assert f"in {behind[0]} behind momentum and in {behind[1]} behind Adam" in text
    assert [share[inside, name] for name in ("momentum", "adam")] == [0, 0]


def test_the_record_is_of_a_commit_without_changes(results):
    assert re.fullmatch("[0-9a-f]{40}", results["environment"]["commit"])
    assert results["environment"]["dirty"] is False


def test_make_targets_and_linked_files_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)", "\n".join(blocks("README.md", "sh")))) <= targets
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_public_names_in_the_readme_exist():
    called = set(re.findall(r"`(\w+)\(", README))
    known = {"max", "inner", *optax_dtnh.__all__, *dir(regularizers)}
    assert called <= known, called - known


def test_it_is_short():
    assert len(README.splitlines()) < 200
