"""The figures in the pages are those of the committed records, and the pictures what they say."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

import optax_dtnh
from benchmarks.cost import __main__ as step_cost
from benchmarks.guarantee import __main__ as guarantee
from benchmarks.guarantee import geometry
from benchmarks.harness import record
from tests.pages.pages import ROOT

RESULTS = ROOT / "benchmarks/results"


def page(name):
    return (ROOT / f"docs/{name}.md").read_text()


def rows(text):
    """The cells of all table rows of a page."""
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def test_the_page_of_the_guarantee_carries_the_table_of_the_record():
    results = record.read(RESULTS / "guarantee.json")
    assert guarantee.markdown(results) in page("guarantee")
    assert f"Shares of {results['draws']} draws" in page("guarantee")
    opposed = {(r["dtype"], r["ratio"]): r["not_descending"] for r in results["opposed"]}
    assert f"in {100 * opposed['float32', 1e8]:.1f} % of the draws at 1e8" in page("guarantee")


def test_the_page_of_the_cost_carries_the_tables_and_the_bounds_of_the_record():
    cost = json.loads((RESULTS / "step_cost.json").read_text())
    assert step_cost.markdown(cost) in page("cost")
    bound = {r["form"]: r["bytes at most"] for table in cost["tables"][:2] for r in table["rows"]}
    text = " ".join(page("cost").split())
    assert (
        f"at most {bound['dtnh']} N for `dtnh` and {bound['add_l2_sp']} N for `add_l2_sp`" in text
    )
    one, two, three = list(bound.values())[-3:]
    assert f"at most {one}, {two} and {three} N for the three with Adam" in text


def test_the_pages_say_what_the_record_says_of_the_second_gradient():
    (table,) = json.loads((RESULTS / "knowdist_cost.json").read_text())["tables"]
    of = {row["maps"]: row for row in table["rows"]}
    assert f"at most {of['stage4']['at most']} times" in page("cost")
    assert f"{of['stage2']['pair']:.2f} times\n  for `stage2`" in page("cost")


@pytest.mark.parametrize("name", ["truncate", "orthogonal", "drop", "cosine", "plain"])
def test_the_formula_of_a_rule_is_that_of_its_docstring_and_of_its_function(name):
    (formula,) = (row[1] for row in rows(page("recipes")) if row[0] == f"`{name}`")
    words = re.sub(r"[`\s]|else.*|if.*", "", formula)
    doc = re.sub(r"[`\s]|r'=", "", getattr(optax_dtnh, name).__doc__)
    assert words in doc
    m, value = jnp.array([2.0, 0.0]), {}
    for r in ([-3.0, 4.0], [3.0, 4.0]):
        r = jnp.array(r)
        inner = float(r @ m)
        value = {
            "truncate": r - min(inner, 0) / (m @ m) * m,
            "orthogonal": r - inner / (m @ m) * m,
            "drop": r if inner >= 0 else 0 * r,
            "cosine": max(inner / 10.0, 0) * r,
            "plain": r,
        }[name]
        found = optax_dtnh.apply_rule(getattr(optax_dtnh, name), r, m)
        np.testing.assert_allclose(found, value, atol=1e-6)


def test_the_pictures_are_drawn_by_the_library(tmp_path, monkeypatch):
    geometry.main(["--out", str(tmp_path)])
    for name in ("geometry.png", "rules.png"):
        for path in (tmp_path / name, ROOT / "docs" / name):
            assert path.read_bytes().startswith(b"\x89PNG"), path
            assert path.stat().st_size < 100_000, path
    monkeypatch.setattr(geometry, "kept", lambda rule, r: np.float32(r))
    with pytest.raises(AssertionError):
        geometry.check()


def test_the_page_of_the_cost_carries_the_times_of_the_update():
    tables_ = json.loads((RESULTS / "step_cost.json").read_text())["tables"]
    of = {(r["optimizer"], r["form"]): r for r in tables_[-1]["rows"]}
    text = " ".join(page("cost").split())
    pair, l2_sp = (f"{of['momentum', form]['time']:.1f}" for form in ("dtnh", "add_l2_sp"))
    assert f"with momentum, {pair} times the time of the optimizer alone" in text
    assert f"and {l2_sp} for `add_l2_sp`" in text
    forms = ("dtnh", "add_l2_sp", "dtnh, inner=", "scale_by_adam_dtnh")
    before, anchored, inner, metric = (f"{of['Adam', form]['time']:.1f}" for form in forms)
    assert (
        f"with Adam {before} and {anchored}, {inner} with Adam as `inner`, and {metric} in its"
        in text
    )
    assert f"before Adam accesses {of['Adam', 'add_l2_sp']['bytes']:.1f} N" in text


def test_the_page_of_the_cost_carries_the_ratios_of_a_whole_step():
    first, *_ = json.loads((RESULTS / "training_step.json").read_text())["tables"]
    of = {row["method"]: row for row in first["rows"]}
    text = " ".join(page("cost").split())
    l2_sp, distance = of["L2-SP + DTNH"], of["KnowDist + DTNH"]
    assert f"{l2_sp['flops ratio']:.3f} times the flops of one with L2-SP" in text
    assert round(l2_sp["peak ratio"], 2) == 1
    low, high = (f"{l2_sp[name]:.2f}" for name in ("low", "high"))
    assert f"{l2_sp['time ratio']:.2f} times the time (quartiles {low} to {high}," in text
    low, high = (f"{distance[name]:.2f}" for name in ("low", "high"))
    times = [
        f"{distance[f'{name} ratio']:.2f} times the {word}"
        for name, word in (("flops", "flops"), ("peak", "memory"), ("time", "time"))
    ]
    assert f"{times[0]}, {times[1]} and {times[2]} ({low} to {high})" in text
