"""What one update costs: the bars, and controls that show that they can be missed."""

import functools
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.cost import __main__ as step_cost
from benchmarks.cost import controls, tables, wall
from benchmarks.cost import grid_table as grid_table_module
from benchmarks.cost.bars import (
    FLOPS,
    GRID_BARS,
    L2_SP,
    PRODUCTS,
    SMALL_LEAVES,
    SMALL_LEAVES_OF_ADAM,
    adam_bars,
    broken,
    grid_bars,
    nonlinear,
    resnet50_bars,
    storage_is_known,
)
from benchmarks.cost.compiled import Cost, compile_step, update_cost
from benchmarks.cost.export import PLATFORMS, export_problems, steps
from benchmarks.cost.forms import ADAM_BASELINE, ADAM_FORMS, FORMS, followed_by, rate, sgd
from benchmarks.cost.grid import built, cells, floor
from benchmarks.cost.grid_table import grid_table
from benchmarks.cost.networks import NETWORKS
from benchmarks.cost.trees import as_params, resnet50, size_in_bytes, small_leaves
from tests.pages.pages import ROOT

STEPS = steps()
METRIC, ADAM = ADAM_FORMS["scale_by_adam_dtnh"], ADAM_BASELINE["Adam alone"]


def on_resnet50(form):
    return update_cost(followed_by(form, sgd()), as_params(resnet50()))


def on_small_leaves(form, count, optimizer=None):
    return update_cost(followed_by(form, optimizer or sgd()), as_params(small_leaves(count)))


def instructions(form, counts):
    return {n: on_small_leaves(form, n).instructions for n in counts}


@functools.cache
def flops_ratios(network, place):
    return tables.flops_ratios(NETWORKS[network], place)


def test_the_tree_has_the_shapes_of_resnet50():
    params = as_params(resnet50())
    assert len(params) == 161
    assert size_in_bytes(params) == 4 * 25_557_032


@pytest.mark.parametrize("name", ["dtnh", "dtnh, orthogonal", "add_l2_sp", "add_l2_sp, plain"])
def test_an_update_stays_within_its_bytes_and_stores_no_tree(name):
    cost, bars = on_resnet50(FORMS[name]), resnet50_bars(name, 161)
    if not storage_is_known():  # another XLA stores more or less, but computes the same
        bars = {"reductions": bars["reductions"]}
    assert not broken(name, cost, bars)


def test_an_update_in_the_metric_stays_within_its_bytes_and_keeps_at_most_one_tree():
    cost = update_cost(followed_by(METRIC, rate()), as_params(resnet50()))
    bars = adam_bars("scale_by_adam_dtnh", 161)
    if not storage_is_known():
        bars = {"reductions": bars["reductions"]}
    assert not broken("scale_by_adam_dtnh", cost, bars)


def test_the_metric_adds_nothing_to_the_state_of_adam():
    params = as_params(resnet50())
    states = [jax.eval_shape(form.transformation.init, params) for form in (METRIC, ADAM)]
    sizes = [sum(x.size for x in jax.tree.leaves(state)) for state in states]
    assert sizes[0] == sizes[1] + 2  # the step and the diagnostic


def test_the_program_of_the_metric_grows_linearly_with_the_leaves():
    counts = {n: on_small_leaves(METRIC, n, rate()).instructions for n in (10, 20, 40)}
    assert not nonlinear("scale_by_adam_dtnh", counts)
    most = SMALL_LEAVES_OF_ADAM["instructions"] / 200
    assert counts[40] <= 40 * most or not storage_is_known()


def test_sharing_the_difference_to_the_anchor_would_store_a_tree():
    missed = broken("shared", on_resnet50(controls.SHARED_DIFFERENCE), L2_SP)
    assert [message.split()[1] for message in missed] == ["bytes", "temporary"]


@pytest.mark.parametrize("name", ["dtnh", "add_l2_sp"])
def test_the_program_grows_linearly_with_the_leaves(name):
    counts = instructions(FORMS[name], (50, 100, 200))
    assert not nonlinear(name, counts)
    assert counts[200] <= SMALL_LEAVES["instructions"] or not storage_is_known()


def test_a_coefficient_ending_in_a_selection_would_grow_faster():
    counts = tables.CONTROL_COUNTS
    assert nonlinear("selection", instructions(controls.SELECTION_LAST, counts))
    assert not nonlinear("division", instructions(controls.DIVISION_LAST, counts))


@pytest.mark.parametrize("rule", PRODUCTS)
def test_products_that_a_rule_does_not_use_are_not_computed(rule):
    assert on_small_leaves(FORMS[f"dtnh, {rule}"], 4).reductions == 4 * PRODUCTS[rule]
    assert on_small_leaves(FORMS[f"add_l2_sp, {rule}"], 4).reductions == 4 * PRODUCTS[rule]


def test_an_explicit_truncate_and_both_spellings_compile_to_the_same_cost():
    default = on_small_leaves(FORMS["dtnh"], 8)._replace(seconds=0)
    for name in ("dtnh, truncate", "dtnh, reg_grads="):
        assert on_small_leaves(FORMS[name], 8)._replace(seconds=0) == default


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("place", FLOPS)
def test_a_gradient_pair_prunes_what_the_regularizer_does_not_see(network, place):
    assert flops_ratios(network, place)["pair"] <= FLOPS[place]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_cotangent_of_zeros_would_prune_nothing(network):
    assert flops_ratios(network, "first half")["zero array"] > FLOPS["first half"]


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", STEPS)
def test_every_public_form_lowers_for_every_platform(name, platform):
    assert export_problems(*STEPS[name], platform) == []


def test_a_callback_would_be_found():
    def step(x):
        jax.debug.print("{x}", x=x)
        return x

    (found,) = export_problems(step, (jnp.ones(2),), "cpu")
    assert "callbacks" in found


def test_a_call_out_of_the_program_would_be_found():
    (found,) = export_problems(jnp.linalg.cholesky, (jnp.eye(2),), "cpu")
    assert found.startswith("calls lapack")


def test_a_float64_leaf_would_be_found():
    found = export_problems(lambda x: x * np.linspace(0.0, 1.0, 2), (jnp.ones(2),), "cpu")
    assert found == ["computes in float64"]


def test_a_missed_bar_names_the_form_the_quantity_and_the_bar():
    cost = Cost(bytes=13.0, temporary=float("nan"), instructions=1, reductions=1, seconds=0.0)
    assert broken("form", cost, {"bytes": 10.1, "temporary": 0.01, "reductions": 1}) == [
        "form: bytes 13, at most 10.1",
        "form: temporary nan, at most 0.01",
    ]


def test_the_exit_code_tells_of_a_missed_bar(monkeypatch, capsys, tmp_path):
    held, missed = tables.Table("held", [{"x": 1.5}], []), tables.Table("not", [{"y": None}], ["z"])
    monkeypatch.setattr(step_cost, "measure", lambda wall: [held])
    assert step_cost.main([]) == 0
    monkeypatch.setattr(step_cost, "measure", lambda wall: [held, missed])
    assert step_cost.main(["--out", str(tmp_path / "cost.json")]) == 1
    assert capsys.readouterr().out.endswith("Bars missed:\nz\n")
    written = json.loads((tmp_path / "cost.json").read_text())
    assert written["environment"]["jax"] == jax.__version__
    assert [table["failures"] for table in written["tables"]] == [[], ["z"]]


def test_every_cell_of_the_grid_has_a_bar_not_below_its_floor():
    barred = {(form, optimizer) for form, row in GRID_BARS.items() for optimizer in row}
    assert barred == set(cells())
    assert all(grid_bars(*cell)["bytes"] > floor(cell) for cell in cells())


@pytest.mark.parametrize("optimizer", ["SGD", "momentum", "Adam", "AdamW"])
@pytest.mark.parametrize("form", ["dtnh", "add_l2_sp"])
def test_the_bars_keep_what_is_said_of_the_floors(form, optimizer):
    assert grid_bars(form, optimizer)["bytes"] <= 1.7 * floor((form, optimizer))


def test_the_floors_are_counted_from_what_is_read_and_written():
    assert floor(("alone", "momentum")) == 5  # g, m, w -> m', w'
    assert floor(("dtnh", "momentum")) == 8  # g, r, and r in the second pass
    assert floor(("add_l2_sp", "momentum")) == 9  # g, w, w_s, and w_s in the second pass
    assert floor(("dtnh, inner=", "Adafactor")) == 8  # its first pass is that of the products


def test_forms_exist_where_the_optimizer_has_what_they_need():
    assert ("dtnh, inner=", "SGD") not in cells()  # around nothing, it is the form before it
    assert [cell[1] for cell in cells() if cell[0] == "scale_by_adam_dtnh"] == ["Adam", "AdamW"]
    assert [cell[1] for cell in cells() if "apart" in cell[0]] == ["momentum"]


@pytest.mark.parametrize("cell", cells(), ids=", ".join)
def test_every_cell_descends(cell):
    # A direction built with the wrong sign would cost the same.
    form, params = built(cell), {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    g, r = jax.tree.map(jnp.ones_like, params), jax.tree.map(jnp.zeros_like, params)
    state = form.transformation.init(params)
    updates, _ = form.update(form.transformation, g, r, state, params)
    assert optax.tree.vdot(updates, g) < 0


@pytest.mark.parametrize("cell", [("dtnh", "Lion"), ("dtnh, inner=", "momentum")], ids=", ".join)
def test_a_cell_stays_within_its_bars_and_is_not_timed_unless_asked(cell):
    (row,) = (table := grid_table(wall=False, chosen=[cell])).rows
    assert not table.failures
    assert row["holds"] or not storage_is_known()
    assert row["bytes / floor"] == row["bytes"] / floor(cell) >= 1
    assert "time" not in row


def test_a_cell_above_its_bar_is_named(monkeypatch):
    monkeypatch.setattr(grid_table_module, "storage_is_known", lambda: True)
    monkeypatch.setitem(GRID_BARS["alone"], "SGD", (2.9, 0.01))
    table = grid_table(wall=False, chosen=[("alone", "SGD")])
    assert table.failures == ["alone with SGD: bytes 3, at most 2.9"]
    assert table.rows[0]["holds"] is False


def test_wall_times_are_paired_ratios_to_the_optimizer_alone():
    params = as_params(small_leaves(4))
    clock = grid_table_module.clock_on(params)
    ratio = {
        (form, optimizer): clock((form, optimizer), compile_step(built((form, optimizer)), params))
        for form, optimizer in [("alone", "SGD"), ("dtnh", "SGD"), ("dtnh", "Muon")]
    }
    assert ratio["alone", "SGD"] is None
    assert ratio["dtnh", "Muon"] is None
    found = ratio["dtnh", "SGD"]
    assert 0 < found.low <= found.median <= found.high
    assert grid_table_module.columns(found)["time"] == found.median
    assert set(grid_table_module.columns(None).values()) == {None}


def test_a_ratio_is_of_adjacent_runs():
    first, second = itertools.cycle([9.0, 2.0]), itertools.cycle([3.0, 4.0])
    found = wall.paired_ratio(lambda: next(first), lambda: next(second), runs=2)
    assert found == wall.Ratio(median=1.75, low=1.125, high=2.375)


def test_the_committed_record_is_of_every_cell_and_of_a_commit_without_changes():
    record = json.loads((ROOT / "benchmarks" / "results" / "cost.json").read_text())
    rows = record["tables"][-1]["rows"]
    assert [(row["form"], row["optimizer"]) for row in rows] == cells()
    for row in rows:
        bars = grid_bars(row["form"], row["optimizer"])
        assert {q: row[f"{q} at most"] for q in bars} == bars
        assert row["holds"]
        assert row["floor"] == floor((row["form"], row["optimizer"]))
        if "time" in row:  # recorded with --wall
            assert (row["time"] is None) == (row["form"] == "alone" or row["optimizer"] == "Muon")
    assert [table["failures"] for table in record["tables"]] == [[]] * len(record["tables"])
    assert record["environment"]["dirty"] is False
    assert re.fullmatch("[0-9a-f]{40}", record["environment"]["commit"])
