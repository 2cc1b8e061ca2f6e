"""What an update costs: the record, what is counted, and controls that have to miss their bars."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cost import bars, controls, grid, tables
from benchmarks.cost.bars import PRODUCTS, broken, nonlinear, update_bars
from benchmarks.cost.compiled import NOT_RUN, Cost, update_cost
from benchmarks.cost.export import PLATFORMS, export_problems, steps
from benchmarks.cost.trees import as_params, resnet50, small_leaves
from benchmarks.cost.uses import GROWING, WITH_ADAM, WITH_SGD, sgd
from benchmarks.harness import record
from benchmarks.harness.command import RESULTS

LEAVES = len(resnet50())
TINY = as_params(small_leaves(4))
STEPS = steps()


def test_the_claims_hold_on_the_record():
    found = [table["rows"] for table in record.read(RESULTS / "cost.json")["tables"]]
    with_sgd, with_adam, small, *_, lowered, cells = found
    assert [row["form"] for row in with_sgd + with_adam] == [*WITH_SGD, *WITH_ADAM]
    for row in with_sgd + with_adam:
        assert not broken(row["form"], cost_in(row), update_bars(row["form"], LEAVES))
    for name in GROWING:
        costs = {row["leaves"]: cost_in(row) for row in small if row["form"] == name}
        assert not nonlinear(name, {n: cost.instructions for n, cost in costs.items()})
    assert all(row[platform] is True for row in lowered for platform in PLATFORMS)
    assert [(row["form"], row["optimizer"]) for row in cells] == grid.cells()
    for row, cell in zip(cells, grid.cells(), strict=True):
        assert row["floor"] == grid.floor(cell) < grid.bars(cell)["bytes"]
        assert not broken(str(cell), cost_in(row), grid.bars(cell))
        if "per_element" in cell[0] and cell[1] not in ("Adafactor", "Muon"):
            assert row["reductions"] == 0


def cost_in(row):
    return Cost(**{name: row[name] for name in Cost._fields})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dtnh", "add_l2_sp", "scale_by_adam_dtnh"])
def test_an_update_stays_within_its_bytes(name):
    missed = broken(name, on_resnet50((WITH_SGD | WITH_ADAM)[name]), update_bars(name, LEAVES))
    # Another XLA stores more or less, but computes the same.
    assert not [m for m in missed if bars.storage_is_known() or "reductions" in m]


@pytest.mark.slow
def test_a_shared_difference_to_the_anchor_would_store_a_tree():
    missed = broken("shared", on_resnet50(controls.SHARED_DIFFERENCE.then(sgd())), bars.L2_SP)
    assert [message.split()[1] for message in missed] == ["bytes", "temporary"]


def on_resnet50(use):
    return update_cost(use, as_params(resnet50()))


@pytest.mark.slow
def test_programs_grow_linearly_and_with_a_selection_at_the_end_they_would_not():
    def instructions(use):
        return {n: cost.instructions for n, cost in tables.growth(use, (20, 40, 80)).items()}

    for use, _ in tables.GROWING_ON_SMALL.values():
        assert not nonlinear("", instructions(use))
    assert nonlinear("", instructions(controls.SELECTION_LAST.then(sgd())))


@pytest.mark.slow
def test_the_counts_of_a_quick_compilation_are_those_of_the_ordinary_one():
    for use in GROWING.values():
        quick, full = (update_cost(use, TINY, options) for options in (NOT_RUN, None))
        assert quick._replace(seconds=0) == full._replace(seconds=0)


@pytest.mark.slow
@pytest.mark.parametrize("rule", PRODUCTS)
def test_products_that_a_rule_does_not_use_are_not_computed(rule):
    for factory in ("dtnh", "add_l2_sp"):
        assert update_cost(WITH_SGD[f"{factory}, {rule}"], TINY).reductions == 4 * PRODUCTS[rule]


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_every_public_use_lowers_for_every_platform(name):
    assert [export_problems(*STEPS[name], platform) for platform in PLATFORMS] == [[], [], []]


@pytest.mark.slow
def test_callbacks_calls_and_float64_would_be_found():
    def prints(x):
        jax.debug.print("{x}", x=x)
        return x

    problems = functools.partial(export_problems, platform="cpu")
    assert "callbacks" in problems(prints, (jnp.ones(2),))[0]
    assert problems(jnp.linalg.cholesky, (jnp.eye(2),))[0].startswith("calls lapack")
    assert problems(lambda x: x * np.ones(2), (jnp.ones(2),)) == ["computes in float64"]
