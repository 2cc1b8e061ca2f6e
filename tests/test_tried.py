"""What was tried computes what the library does, and the page says what was measured."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cost.tables import Table
from benchmarks.tried import __main__ as tried
from benchmarks.tried import ghost, report, tables
from benchmarks.tried.measures import error_of
from benchmarks.tried.sums import IDEAS, JOINED, NOW, PRODUCTS, STACKED, VARIADIC, by_products
from tests.pages import ROOT


def updated(form, sign):
    rng = np.random.default_rng(0)
    shapes = {"a": (70, 70), "b": (8,), "c": (4, 3), "d": (5,)}  # the first one is not small
    g = {k: jnp.asarray(rng.standard_normal(shape, np.float32)) for k, shape in shapes.items()}
    r = {k: sign * x + rng.standard_normal(x.shape, np.float32) for k, x in g.items()}
    state = form.transformation.init(g)
    return form.update(form.transformation, g, r, state, g)[0]


@pytest.mark.parametrize("sign", [-1.0, 1.0], ids=["conflict", "none"])
@pytest.mark.parametrize("idea", IDEAS)
def test_an_idea_computes_what_the_library_does(idea, sign):
    expected, found = updated(IDEAS[NOW], sign), updated(IDEAS[idea], sign)
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_other_products_would_be_noticed():
    wrong = by_products(lambda r, m: (jnp.float32(-1.0), jnp.float32(1.0)))
    expected, found = updated(IDEAS[NOW], 1.0), updated(wrong, 1.0)
    assert not np.allclose(expected["a"], found["a"], atol=1e-5)


def test_gram_matrices_give_the_update_of_the_pair_with_and_without_a_conflict():
    table = tables.exact_table()
    assert table.failures == []
    assert [row["conflict, pair"] for row in table.rows] == [1.0, 0.0]


def test_a_conflict_that_is_none_and_an_error_are_named(monkeypatch):
    wrong = {"conflict": {"error": 1e-3, "conflict, pair": 0.0, "conflict, ghost": 0.0}}
    monkeypatch.setattr(ghost, "errors", lambda: wrong)
    assert tables.exact_table().failures == [
        "ghost, conflict: error 1.0e-03, at most 1e-05",
        "ghost, conflict: not the case it is meant to be",
    ]


def test_gram_matrices_pay_where_there_are_few_rows(monkeypatch):
    monkeypatch.setattr(ghost, "ROWS", (8, 256))
    table = tables.ghost_table()
    assert table.failures == []
    monkeypatch.setattr(ghost, "ROWS", (8,))
    assert tables.ghost_table().failures[0].startswith("ghost: flops saved")


def test_one_accumulator_rounds_and_the_library_does_not():
    assert error_of(PRODUCTS[NOW]) < 1e-6
    assert error_of(PRODUCTS[VARIADIC]) > 1e-4


def test_an_idea_that_is_cheaper_than_said_is_named():
    row = {"tree": "t", "bytes": 10.0, "temporary": 0.0, "fusions": 9}
    now = row | {"idea": NOW}
    assert tables.ideas_failures([now, row | {"idea": VARIADIC, "bytes": 9.0}]) == []
    assert tables.ideas_failures([now, row | {"idea": STACKED, "bytes": 9.0}]) == [
        f"t, {STACKED}: bytes 9.00, now 10.00",
        f"t, {STACKED}: temporary 0.00, at least 1",
    ]
    assert tables.ideas_failures([now, row | {"idea": JOINED}]) == [
        f"t, {JOINED}: no fewer kernels, 9"
    ]


def test_a_row_has_a_time_only_if_asked():
    shapes = {"a": (70, 70), "b": (8,)}
    (row, *_) = tables.rows_of("t", shapes, wall=False)
    assert "time" not in row
    now, other, *_ = tables.rows_of("t", shapes, wall=True)
    assert now["time"] is None
    assert 0 < other["low"] <= other["time"] <= other["high"]


def test_leaves_stay_where_they_are_in_the_library_alone():
    found = tables.sharded_table()
    assert found.failures == []
    gathers = {row["idea"]: row["all-gather"] for row in found.rows}
    assert gathers[NOW] == 0
    assert gathers[JOINED] > 0


def test_the_exit_code_tells_of_a_claim_that_fails(monkeypatch, capsys, tmp_path, found):
    monkeypatch.setattr(tried.jax.config, "update", lambda *_: None)  # the tests have devices
    for failures in ([], ["ghost: z"]):
        ghosts = found | {"ghost": found["ghost"]._replace(failures=failures)}
        monkeypatch.setattr(tables, "measure", lambda wall, ghosts=ghosts: ghosts.items())
        path = tmp_path / "out" / "tried.json"
        assert tried.main(["--out", str(path)]) == len(failures)
        assert json.loads(path.read_text())["tables"]["ghost"]["failures"] == failures
    assert capsys.readouterr().out.endswith("Claims that fail:\nghost: z\n")
    assert path.with_suffix(".md").read_text() == report.markdown(found)


@pytest.fixture(scope="module")
def record():
    """The committed record."""
    return json.loads((ROOT / "benchmarks" / "results" / "tried.json").read_text())


@pytest.fixture(scope="module")
def found(record):
    """The tables of the committed record."""
    return {name: Table(**table) for name, table in record["tables"].items()}


def test_the_committed_page_is_of_the_record_and_of_a_commit_without_changes(record, found):
    page = ROOT / "benchmarks" / "results" / "tried.md"
    assert page.read_text() == report.markdown(found)
    assert all(table.failures == [] for table in found.values())
    assert {row["idea"] for row in found["ideas"].rows} == set(IDEAS)
    assert record["environment"]["dirty"] is False
    assert re.fullmatch("[0-9a-f]{40}", record["environment"]["commit"])
