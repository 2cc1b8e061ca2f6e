"""The accelerator's benchmark on a CPU: what it says, refuses and imports, and that it runs."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.cost.accelerator import __main__ as accelerator
from benchmarks.cost.accelerator import clock, equality, training, update
from benchmarks.cost.accelerator.trees import BIG, transformer, vit_base
from benchmarks.cost.forms import Form
from benchmarks.cost.trees import as_params, size_in_bytes
from tests.pages.pages import ROOT

ALLOWED = {"jax", "optax", "flax", "numpy", "optax_dtnh", "benchmarks", *sys.stdlib_module_names}
CPU = {**os.environ, "JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize(
    "command", [["benchmarks/cost/accelerator/__main__.py"], ["-m", "benchmarks.cost.accelerator"]]
)
def test_without_a_device_it_says_so_in_one_line_and_nothing_has_failed(command):
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=CPU, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = f"Nothing was measured: jax {jax.__version__} finds no GPU or TPU here, only a CPU.\n"
    assert (done.stdout, done.stderr) == (said, "")


def test_a_device_that_does_not_start_is_one_line_too(monkeypatch, capsys):
    def fails():
        raise RuntimeError("Unable to initialize backend 'cuda'\nand more")

    monkeypatch.setattr(jax, "default_backend", fails)
    assert accelerator.main([]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "cannot start a device (Unable to initialize backend 'cuda')" in said


def test_everything_runs_small_on_a_cpu_and_is_marked(tmp_path, capsys, quickly_compiled):
    path = tmp_path / "out" / "cpu.json"
    assert accelerator.main(["--cpu", "--out", str(path)]) == 0
    said, written = capsys.readouterr().out, json.loads(path.read_text())
    assert accelerator.NO_MEASUREMENT in said
    assert written["cpu"] is True
    assert {row["update"] for row in written["updates"]} == set(update.UPDATES)
    assert {row["method"] for row in written["steps"]} == set(training.METHODS)
    assert {row["network"] for row in written["steps"]} == set(accelerator.NETWORKS)
    assert all(row["ms"] > 0 for row in written["updates"] + written["steps"])


def test_figures_of_a_cpu_are_never_written_among_the_results(capsys):
    with pytest.raises(SystemExit) as refusal:
        accelerator.parse(["--cpu", "--out", "benchmarks/results/accelerator.json"])
    assert refusal.value.code == 2
    assert "`--out` should be outside of benchmarks/results with `--cpu`" in capsys.readouterr().err


def test_compiled_updates_are_eager_ones_and_the_formula():
    found = equality.differences()
    assert len(found) == 7
    assert equality.unequal(found) == []


def test_nothing_is_timed_where_compiled_and_eager_differ(monkeypatch, capsys):
    def update(tx, g, r, state, params):
        wrong = 1.0001 if isinstance(jax.tree.leaves(g)[0], jax.core.Tracer) else 1.0
        return jax.tree.map(lambda x: wrong * x, g), state

    found = equality.differences({"wrong": Form(optax.identity(), update)})
    monkeypatch.setattr(equality, "differences", lambda: found)
    monkeypatch.setattr(accelerator, "measured", lambda small: pytest.fail("was timed"))
    assert accelerator.main(["--cpu"]) == 1
    said = capsys.readouterr().out
    assert (
        "Refused to time what is wrong:\nwrong: jit from eager: updates differ by 1.0e-04" in said
    )


def test_a_difference_that_is_no_number_is_unequal():
    (message,) = equality.unequal({"x": float("nan"), "y": 1e-6})
    assert message == "x: updates differ by nan, at most 1e-05"


def test_the_gradients_of_the_check_conflict_and_the_rule_shows():
    g, noise = ({"x": jnp.asarray(np.random.default_rng(i).normal(size=50))} for i in (0, 1))
    r = jax.tree.map(lambda x, y: x - y, noise, g)
    plain = jax.tree.map(lambda x, y: x + equality.WEIGHT * y, g, r)
    assert equality.apart(plain, equality.formula(g, r)) > 1e-2


def entry(fun, *args):
    """The part of a compiled program outside of its loop."""
    return fun.lower(*args).compile().as_text().split("ENTRY")[1]


def test_inner_products_of_gradients_that_stay_are_computed_in_every_iteration():
    def body(x, g):
        return x + jnp.sum(g * g)

    def naive(n, x, g):
        return jax.lax.fori_loop(0, n, lambda _, x: body(x, g), x)

    args = jnp.asarray(3), jnp.zeros(()), jnp.ones((300, 300))
    assert clock.looped(body)(*args) == 3 * 300 * 300
    jaxpr = str(jax.make_jaxpr(clock.looped(body))(*args))
    assert "optimization_barrier" in jaxpr.split("while")[1]
    assert "reduce" in entry(jax.jit(naive), *args)
    assert "reduce" not in entry(clock.looped(body), *args)


def test_the_trees_have_the_sizes_of_their_names():
    sizes = {name: size_in_bytes(as_params(transformer(*of))) / 4e6 for name, of in BIG.items()}
    assert size_in_bytes(as_params(vit_base())) == 4 * 86_567_656
    assert 123 < sizes["transformer, 124M"] < 125
    assert 1000 < sizes["transformer, 1.0B"] < 1050


def test_a_tree_that_does_not_fit_is_a_row_that_says_so(monkeypatch):
    monkeypatch.setattr(update, "memory", lambda: 10_000)
    row = update.row_of("tree", "dtnh", as_params({"x": (1000,)}), 1e9, 0.0)
    assert row["ms"] is None
    assert row["note"] == "needs 0.0 GB of 0.0"


def test_a_goal_is_reached_or_not_and_too_fast_is_implausible():
    assert update.verdict(10**8, "dtnh", 0.86) == "goal of 85% reached"
    assert update.verdict(10**8, "dtnh", 0.84) == "goal of 85% NOT reached"
    assert update.verdict(10**7, "dtnh", 0.5) == ""
    assert update.verdict(10**8, "SGD alone", 0.5) == ""
    assert update.verdict(10**8, "dtnh", 1.2).startswith("implausible")


def test_the_share_of_a_step_is_reached_or_not():
    updates = [
        {"tree": "ResNet-50", "update": name, "ms": ms}
        for name, ms in {"SGD alone": 0.1, "dtnh": 0.2, "add_l2_sp": 0.4}.items()
    ]
    pair, anchor = accelerator.shares(updates, [{"network": "ResNet-50", "ms": 30.0}])
    assert pair["note"] == "goal of 1% reached"
    assert pair["beyond SGD"] == pytest.approx(0.1 / 30)
    assert anchor["note"] == "goal of 1% NOT reached"
    assert accelerator.shares([], []) == []


def test_only_jax_optax_flax_and_numpy_are_imported():
    code = (
        "import sys, benchmarks.cost.accelerator\n"
        "ours = ('benchmarks', 'optax_dtnh')\n"
        "print(*(m.__file__ for name, m in sys.modules.items() if name.startswith(ours)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=CPU, capture_output=True, text=True, check=True
    )
    files = [Path(file) for file in done.stdout.split()]
    assert ROOT / "benchmarks" / "device" / "update.py" in files
    assert {name for file in files for name in imports(file)} - ALLOWED == set()
    assert "torch" in imports(ROOT / "benchmarks" / "peer" / "torch_side.py")  # would be seen


def imports(file):
    """First names of all modules that a file imports, inside of functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
