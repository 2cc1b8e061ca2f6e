"""The accelerator's benchmark on a CPU: what it refuses and imports, and that it runs."""

from argparse import Namespace

import jax
import optax
import pytest

from benchmarks.cost.accelerator import __main__ as accelerator
from benchmarks.cost.accelerator import equality, update
from benchmarks.cost.uses import Use
from benchmarks.harness import record
from optax_dtnh.finetune.errors import UsageError


def test_without_a_device_nothing_is_measured_and_times_of_a_cpu_are_never_recorded():
    with pytest.raises(UsageError, match="finds no GPU or TPU here, only a CPU"):
        accelerator.measure(Namespace(cpu=False, record=False))
    with pytest.raises(UsageError, match="`--cpu` should not be recorded"):
        accelerator.measure(Namespace(cpu=True, record=True))


@pytest.mark.slow
def test_everything_runs_small_on_a_cpu(tmp_path, quickly_compiled):
    assert accelerator.main(["--cpu", "--out", str(tmp_path)]) == 0
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
