"""What an update costs: the record, what is counted, and controls that have to miss their bars."""

import functools
from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.cost import (
    bars,
    grid,
    networks,
    one_backward_pass,
    tables,
    uses,
)
from benchmarks.cost.accelerator import __main__ as accelerator
from benchmarks.cost.accelerator import equality, update
from benchmarks.cost.anchor import bytes as anchor_bytes
from benchmarks.cost.anchor import error
from benchmarks.cost.bars import exceeded, nonlinear
from benchmarks.cost.compiled import NOT_RUN, StepCost, step_cost, update_cost
from benchmarks.cost.many_devices.decoder import Sizes
from benchmarks.cost.tables import PLATFORMS, export_problems, steps
from benchmarks.cost.training import of_pair
from benchmarks.cost.trees import as_params, resnet50, small_leaves
from benchmarks.cost.uses import WEIGHT, Use, one_gradient, sgd, truncated
from benchmarks.harness import record
from benchmarks.harness.command import RESULTS, command
from optax_dtnh import add_l2_sp, cosine, drop, dtnh, orthogonal, plain, truncate
from optax_dtnh.finetune.errors import UsageError

STAGE = {name: shape for name, shape in resnet50().items() if name.startswith("stage3")}
# The inner products that are left in the program. The state's `conflict` needs <r, m> always.
PRODUCTS = [(truncate, 2), (orthogonal, 2), (drop, 2), (plain, 1), (cosine, 3)]
PRODUCTS_OF_CELLS = {
    ("dtnh", "momentum"): 2,
    ("add_l2_sp", "momentum"): 2,
    ("scale_by_adam_dtnh", "Adam"): 3,
}
TINY = as_params(small_leaves(4))
STEPS = steps()
DECODER = Sizes(layers=3, width=64, heads=2, mlp=128, vocabulary=512, batch=4, length=8)


def test_the_record_has_every_cell_within_the_bars_of_today():
    *_, cells = record.read(RESULTS / "cost.json")["tables"]
    assert [(row["form"], row["optimizer"]) for row in cells["rows"]] == grid.cells()
    for row, cell in zip(cells["rows"], grid.cells(), strict=True):
        assert not exceeded(str(cell), row, grid.bars(cell))


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "products"), PRODUCTS_OF_CELLS.items())
def test_an_update_stays_within_its_bytes(cell, products):
    cost = on_a_stage(grid.built(cell))
    assert cost["reductions"] == products * len(STAGE)
    # Another XLA stores more or less, but computes the same.
    assert not bars.where_known(exceeded(str(cell), cost, grid.bars(cell)))


@pytest.mark.slow
def test_a_shared_difference_to_the_anchor_would_store_a_tree():
    def update(updates, state, params=None):
        return truncated(updates, jax.tree.map(jnp.subtract, params, state)), state

    shared = optax.GradientTransformation(lambda params: jax.tree.map(jnp.copy, params), update)
    cost = on_a_stage(Use(shared, one_gradient).then(sgd()))
    missed = exceeded("shared", cost, grid.bars(("add_l2_sp", "momentum")))
    assert [message.split()[1] for message in missed] == ["bytes", "temporary"]


def on_a_stage(use):
    return update_cost(use, as_params(STAGE))._asdict()


@pytest.mark.slow
def test_programs_grow_linearly_and_with_a_selection_at_the_end_they_would_not():
    def instructions(use):
        trees = {n: as_params(small_leaves(n)) for n in (12, 24, 48)}
        return {n: update_cost(use, tree, NOT_RUN).instructions for n, tree in trees.items()}

    for use, _ in tables.GROWING_ON_SMALL.values():
        assert not nonlinear("", instructions(use))
    assert nonlinear("", instructions(uses.SELECTION_LAST.then(sgd())))


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "products"), PRODUCTS)
def test_products_that_a_rule_does_not_use_are_not_computed(rule, products):
    for factory, call in ((dtnh, uses.pair), (add_l2_sp, one_gradient)):
        use = Use(factory(WEIGHT, rule=rule), call).then(sgd())
        assert update_cost(use, TINY).reductions == 4 * products


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


def test_flops_and_peak_are_those_of_a_product_by_hand():
    program = jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((8, 8), "float32")).compile()
    assert step_cost(program) == StepCost(flops=2 * 8**3, peak=2 * 8 * 8 * 4, temporary=0)


@pytest.mark.slow
def test_between_renewals_a_step_is_one_gradient_and_a_second_one_outside_would_be_found():
    program = one_backward_pass.of_network(networks.of_mlp(64, 2, 256, 10))
    row = one_backward_pass.row_of("MLP", program)
    assert not one_backward_pass.missed(row)
    assert row["flops renewing"] > 1.5
    losses, args = program
    pair = one_backward_pass.compiled(of_pair(losses), *args)
    (outside,) = one_backward_pass.products(pair.as_text())
    found = one_backward_pass.missed(row | {"products outside": outside, "every 4": 1.19})
    assert outside > row["products"]
    assert [message.split()[1] for message in found] == ["every", "products"]


def test_without_a_device_nothing_is_measured_and_times_of_a_cpu_are_never_recorded():
    with pytest.raises(UsageError, match="finds no GPU or TPU here, only a CPU"):
        accelerator.measure(Namespace(cpu=False, record=False))
    with pytest.raises(UsageError, match="`--cpu` should not be recorded"):
        accelerator.measure(Namespace(cpu=True, record=True))


@pytest.mark.slow
@pytest.mark.long
def test_everything_runs_small_on_a_cpu(tmp_path, quickly_compiled):
    assert command(accelerator.QUESTION, ["--cpu", "--out", str(tmp_path)]) == 0
    written = record.read(tmp_path / "cost.accelerator.json")
    _, updates, steps = (table["rows"] for table in written["tables"])
    assert {row["update"] for row in updates} == set(update.FLOORS)
    assert {row["network"] for row in steps} == set(accelerator.NETWORKS)


@pytest.mark.slow
def test_nothing_is_timed_where_compiled_and_eager_differ(monkeypatch):
    def wrong(tx, g, r, state, params):
        factor = 1.0001 if isinstance(jax.tree.leaves(g)[0], jax.core.Tracer) else 1.0
        return jax.tree.map(lambda x: factor * x, g), state

    found = equality.table({"wrong": Use(optax.identity(), wrong)})
    assert found.failures[0] == "wrong: jit from eager: 1.0e-04 apart, at most 1e-05"
    monkeypatch.setattr(equality, "table", lambda: found)
    assert list(accelerator.measured(small=True)) == [found]


@pytest.mark.slow
def test_arguments_are_where_the_anchor_is_put():
    assert anchor_bytes.table("CPU", jax.devices()[:4], DECODER).failures == []


@pytest.mark.slow
def test_the_pull_changes_by_the_rounding_of_the_anchor_and_the_accuracies_are_paired(
    monkeypatch, quickly_compiled
):
    monkeypatch.setattr(error, "CELLS", error.CELLS[:1])
    monkeypatch.setattr(error, "WEIGHTS", (1.0,))
    pull, accuracy = error.tables(seeds=2)
    assert pull.failures == accuracy.failures == []
    assert 0 < pull.rows[0]["change of r / |w_s|"] < error.MOVED
    (row,) = accuracy.rows
    assert error.too_coarse(0.002)
    assert len(error.changed([row | {"difference": -0.6}, row | {"difference": np.nan}])) == 2
