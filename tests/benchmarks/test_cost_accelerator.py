"""The accelerator's benchmark on a CPU: what it refuses and imports, and that it runs."""

import subprocess
import sys
from argparse import Namespace

import jax
import jax.numpy as jnp
import optax
import pytest

from benchmarks.cost.accelerator import __main__ as accelerator
from benchmarks.cost.accelerator import clock, equality, update
from benchmarks.cost.trees import as_params
from benchmarks.cost.uses import Use
from benchmarks.harness import record
from optax_dtnh.finetune.errors import UsageError

REFUSES = """
import importlib.abc, sys
class Refuses(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        # What jax imports by itself is none of ours.
        if name in ("flax", "matplotlib", "sklearn", "safetensors", "torch", "tqdm", "orbax"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuses())
import benchmarks.cost.accelerator.__main__
"""


def test_a_bare_installation_and_a_checkout_are_all_that_it_needs():
    code = [sys.executable, "-c", REFUSES]
    subprocess.run(code, cwd=record.ROOT, check=True, capture_output=True, timeout=120)


def test_without_a_device_nothing_is_measured_and_times_of_a_cpu_are_never_recorded():
    with pytest.raises(UsageError, match="finds no GPU or TPU here, only a CPU"):
        accelerator.measure(Namespace(cpu=False, record=False))
    with pytest.raises(UsageError, match="`--cpu` should not be recorded"):
        accelerator.measure(Namespace(cpu=True, record=True))


def test_a_goal_is_reached_or_not_and_too_fast_is_implausible():
    assert update.verdict(10**8, "dtnh", 0.86) == "goal of 85% reached"
    assert update.verdict(10**8, "dtnh", 0.84) == "goal of 85% NOT reached"
    assert update.verdict(10**7, "dtnh", 0.5) == update.verdict(10**8, "SGD alone", 0.5) == ""
    assert update.verdict(10**8, "dtnh", 1.2).startswith("implausible")
    updates = [
        {"tree": "ResNet-50", "update": name, "ms": ms}
        for name, ms in {"SGD alone": 0.1, "dtnh": 0.2, "add_l2_sp": 0.4}.items()
    ]
    pair, anchor = accelerator.shares(updates, [{"network": "ResNet-50", "ms": 30.0}]).rows
    assert pair["note"] == "goal of 1% reached"
    assert pair["beyond SGD"] == pytest.approx(0.1 / 30)
    assert anchor["note"] == "goal of 1% NOT reached"


def test_a_tree_that_does_not_fit_is_a_row_that_says_so(monkeypatch):
    monkeypatch.setattr(update, "memory", lambda: 10_000)
    row = update.row_of("tree", "dtnh", as_params({"x": (1000,)}), 1e9, 0.0)
    assert (row["ms"], row["note"]) == (None, "needs 0.0 GB of 0.0")


@pytest.mark.slow
def test_everything_runs_small_on_a_cpu_and_is_marked(tmp_path, quickly_compiled):
    assert accelerator.main(["--cpu", "--out", str(tmp_path)]) == 0
    written = record.read(tmp_path / "cost.accelerator.json")
    checked, updates, steps = (table["rows"] for table in written["tables"])
    assert len(checked) == 7
    assert {row["update"] for row in updates} == set(update.FLOORS)
    assert {row["network"] for row in steps} == set(accelerator.NETWORKS)
    assert all(row["ms"] > 0 for row in updates + steps)
    page = (tmp_path / "cost.accelerator.md").read_text()
    assert page.startswith(accelerator.NO_MEASUREMENT)


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
def test_inner_products_of_gradients_that_stay_are_computed_in_every_iteration():
    def body(x, g):
        return x + jnp.sum(g * g)

    def entry(fun):  # the part of a compiled program outside of its loop
        return fun.lower(*args).compile().as_text().split("ENTRY")[1]

    args = jnp.zeros(()), jnp.ones((300, 300))
    naive = jax.jit(lambda x, g: jax.lax.fori_loop(0, 3, lambda _, x: body(x, g), x))
    assert clock.looped(body, 3)(*args) == 3 * 300 * 300
    assert "optimization_barrier" in str(jax.make_jaxpr(clock.looped(body, 3))(*args))
    assert "reduce" in entry(naive)
    assert "reduce" not in entry(clock.looped(body, 3))
