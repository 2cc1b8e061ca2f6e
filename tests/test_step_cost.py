"""What one update costs: the bars, and controls that show that they can be missed."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import step_cost
from benchmarks.cost import controls, tables, wall
from benchmarks.cost.bars import (
    FLOPS,
    L2_SP,
    PRODUCTS,
    SMALL_LEAVES,
    SMALL_LEAVES_OF_ADAM,
    adam_bars,
    broken,
    nonlinear,
    resnet50_bars,
    storage_is_known,
)
from benchmarks.cost.compiled import Cost, update_cost
from benchmarks.cost.export import PLATFORMS, export_problems, steps
from benchmarks.cost.forms import ADAM_BASELINE, ADAM_FORMS, BASELINE, FORMS, followed_by, rate, sgd
from benchmarks.cost.networks import NETWORKS
from benchmarks.cost.trees import as_params, resnet50, size_in_bytes, small_leaves

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


def test_wall_times_are_paired_ratios():
    params = as_params(small_leaves(4))
    alone = followed_by(BASELINE["SGD alone"], optax.sgd(0.1))
    ratio = wall.paired_ratio(followed_by(FORMS["dtnh"], optax.sgd(0.1)), alone, params, runs=3)
    assert 0 < ratio.low <= ratio.median <= ratio.high
