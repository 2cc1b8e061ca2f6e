"""The comparison with torch and optax by hand: all of it that needs no torch."""

import json
import os
import subprocess
import sys
from io import StringIO
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers import agreement, inputs, jax_side, measure, report, waiting, work
from benchmarks.peers.client import started
from benchmarks.peers.contender import Contender
from benchmarks.peers.jax_rules import RULES
from benchmarks.peers.ratios import Spread, in_turns, paired, spread
from benchmarks.peers.worker import Worker, serve
from tests.pages.pages import ROOT

SHAPES = {"a": (3, 5), "b": (7,)}


def test_contenders_take_turns_and_the_order_turns_around():
    order = []
    runs = {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}
    times = in_turns(runs, rounds=2, warm_up=1)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert times == {"a": [4.0, 5.0], "b": [3.0, 6.0]}


def test_a_ratio_is_the_median_of_ratios_and_not_the_ratio_of_medians():
    times = {"x": [1.0, 20.0, 30.0], "base": [1.0, 10.0, 10.0]}
    assert paired(times, "x", "base") == Spread(median=2.0, low=1.5, high=2.5)
    assert paired(times, "base", "base") == Spread(1.0, 1.0, 1.0)


def test_ratios_of_different_rounds_are_refused():
    with pytest.raises(ValueError, match=r"`times` should hold as many rounds of 'x' as of 'y'"):
        paired({"x": [1.0], "y": [1.0, 2.0]}, "x", "y")


def test_waiting_is_made_passive():
    environ = {"OMP_WAIT_POLICY": "passive"}
    waiting.passive(environ)
    assert environ == waiting.PASSIVE | {"OMP_WAIT_POLICY": "passive"}


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "infinite")]
)
def test_busy_waiting_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` should be \w+, got '{value}'. Unset it"):
        waiting.passive({name: value})


def test_torch_that_was_imported_before_the_waiting_was_set_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    with pytest.raises(RuntimeError, match="`torch` should be imported after the waiting is set"):
        waiting.passive({})
    waiting.passive(dict(waiting.PASSIVE))


def test_more_threads_than_cores_are_refused(monkeypatch):
    pinned = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 2}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, c: pinned.append(c), raising=False)
    with pytest.raises(ValueError, match="`threads` should be from 1 to 2, the cores"):
        waiting.pin(3)
    assert waiting.pin(1) == [2]
    assert pinned == [[2]]
    monkeypatch.delattr(os, "sched_setaffinity")
    assert waiting.pin(1) is None


@pytest.mark.parametrize("contender", RULES)
def test_the_combination_in_jax_is_the_formula(contender):
    spec = {"task": "combine", "contender": contender, "shapes": SHAPES, "dtype": "float32"}
    made = jax_side.build(spec)
    made.run()
    g, r = inputs.gradient_pair(SHAPES, "float32")
    assert agreement.relative(made.updates(), agreement.formula(g, r)) < 1e-6
    assert agreement.relative({k: g[k] + 0.5 * r[k] for k in g}, agreement.formula(g, r)) > 0.01


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_the_gradients_of_every_problem_conflict(network, quickly_compiled):
    params, batch = jax.tree.map(jnp.asarray, inputs.problem(network, "float32"))
    fun = jax_side.losses_of(jax_side.NETWORKS[network])
    g, r = (jax.jit(jax.grad(lambda p, i=i: fun(p, batch)[i]))(params) for i in (0, 1))
    assert sum(float((g[k] * r[k]).sum()) for k in g) < 0


def test_steps_of_ours_and_of_optax_by_hand_are_the_same(quickly_compiled):
    updates = {}
    for contender in ("ours", "optax by hand", "single"):
        spec = {"task": "step", "network": "mlp", "contender": contender, "dtype": "float32"}
        made = jax_side.build(spec)
        made.run()
        updates[contender] = made.updates()
    assert agreement.relative(updates["optax by hand"], updates["ours"]) < 1e-4
    assert agreement.relative(updates["single"], updates["ours"]) > 1e-4


def test_the_difference_of_updates_is_relative_and_infinite_for_other_names():
    x = {"a": np.array([3.0, 4.0])}
    assert agreement.relative({"a": np.array([3.0, 4.5])}, x) == pytest.approx(0.1)
    assert agreement.relative({"b": x["a"]}, x) == np.inf
    assert agreement.relative({"a": np.zeros(3)}, x) == np.inf


@pytest.mark.parametrize(
    ("contender", "difference", "said"),
    [
        ("ours", 1e-12, None),
        ("ours", 1e-8, "MLP, ours: updates differ by 1.0e-08, at most 1e-09"),
        ("ours", float("nan"), "MLP, ours: updates differ by nan, at most 1e-09"),
        ("TorchJD PCGrad", 0.1, None),
        ("TorchJD PCGrad", 1e-15, "MLP, TorchJD PCGrad: no conflict in the numbers"),
        ("optax by hand", 0.1, None),
    ],
)
def test_ours_has_to_agree_and_pcgrad_has_to_differ(contender, difference, said):
    row = {"work": "MLP", "contender": contender, "difference": difference}
    found = agreement.missed(row, "float64")
    assert found == [] if said is None else found[0].startswith(said)


def test_ours_has_to_be_the_formula():
    row = {"work": "w", "contender": "ours", "difference": 2e-6, "from float64": 4e-8}
    assert agreement.missed(row, "float32") == []
    (found,) = agreement.missed(row | {"from float64": 2e-6}, "float32")
    assert found == "w, ours: 2.0e-06 from the formula, at most 1e-06"


def test_flops_above_the_bar_are_a_failure():
    row = {"work": "MLP", "contender": "ours", "difference": 0.0, "flops": 1.7}
    assert measure.failures_of({"step": [row]}) == ["MLP, ours: flops 1.700, at most 1.67"]
    assert measure.failures_of({"step": [row | {"flops": 1.6}]}) == []


def tables():
    """Rows of every kind."""
    common = {"work": "w", "contender": "ours", "difference": 1e-8, "ratio": Spread(2.0, 1.5, 2.5)}
    ms = {"ms": Spread(10.0, 9.0, 11.0)}
    tuned = {"images/s": Spread(8.0, 7.0, 9.0), "to torch": None, "peak MiB": 900.0}
    base = {"difference": None, "ratio": None, "after imports MiB": 300.0}
    return {
        "combination": [common | ms | {"from float64": 1e-8}],
        "step": [common | ms | {"flops": 1.65, "difference": 1e-14}],
        "finetuning": [common | tuned | base | {"contender": name} for name in ("jax", "torch")],
    }


def test_the_tables_show_medians_with_quartiles_and_a_dash_for_what_there_is_not():
    shown = report.text(tables(), work.IMAGES)
    assert "| w | ours | 10.0 (9.0 to 11.0) | 2.00 (1.50 to 2.50) | 1.0e-08 | 1.0e-08 |" in shown
    assert "| w | jax | 8.0 (7.0 to 9.0) | – | – | 900 | – |" in shown
    assert "a ResNet-18 on 8 images of 96 px" in shown


def test_the_command_writes_its_record_and_its_exit_code_tells_of_a_failure(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(peers, "check_packages", lambda: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    found = tables()
    monkeypatch.setattr(peers, "measured", lambda threads, rounds: found)
    assert peers.main(["--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("All claims hold.\n")
    found["step"][0]["difference"] = 1e-3
    assert peers.main(["--out", str(tmp_path)]) == 1
    assert "w, ours: updates differ by 1.0e-03" in capsys.readouterr().out
    written = json.loads((tmp_path / "peers.json").read_text())
    assert written["step"][0]["ratio"] == [2.0, 1.5, 2.5]
    assert written["environment"]["jax"] == jax.__version__
    note = " ".join((tmp_path / "peers.md").read_text().split())
    assert "TorchJD's aggregators are not like for like" in note
    assert "(jax 300 MiB, torch 300 MiB)" in note


def test_a_missing_package_is_named_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(peers, "NEEDED", ("no_such_package",))
    with pytest.raises(SystemExit) as refusal:
        peers.main([])
    assert refusal.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "`no_such_package` should be importable, because it is compared with" in said


def test_a_package_that_is_missing_is_an_import_error(monkeypatch):
    monkeypatch.setattr(peers, "NEEDED", ("no_such_package",))
    with pytest.raises(ImportError, match="Run `make peers`"):
        peers.check_packages()


def test_busy_waiting_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", {**os.environ, "OMP_WAIT_POLICY": "ACTIVE"})
    with pytest.raises(SystemExit) as refusal:
        peers.main([])
    assert refusal.value.code == 2
    assert "`OMP_WAIT_POLICY` should be PASSIVE, got 'ACTIVE'" in capsys.readouterr().err


def test_a_worker_answers_line_by_line(tmp_path):
    runs = []
    made = Contender(lambda: runs.append(1), lambda: {"a": np.ones(2)}, {"flops": 7.0})
    path = str(tmp_path / "updates.npz")
    commands = [["build", ["x", {}]], ["run", ["x"]], ["updates", ["x", path]], ["memory", []]]
    answers = StringIO()
    serve(Worker(lambda spec: made), map(json.dumps, commands), answers)
    about, seconds, _, memory = map(json.loads, answers.getvalue().splitlines())
    assert about == {"flops": 7.0}
    assert seconds >= 0
    assert len(runs) == 1
    assert 0 < memory["imported"] <= memory["peak"]
    np.testing.assert_array_equal(np.load(path)["a"], np.ones(2))


def test_a_process_of_its_own_computes_the_same_and_its_end_is_an_error(tmp_path, capfd):
    spec = {"task": "combine", "contender": "ours", "shapes": SHAPES, "dtype": "float32"}
    with started("jax", 1, cache=tmp_path / "compiled") as client:
        client.call("build", "ours", spec)
        found = client.updates("ours", tmp_path)
        assert (
            agreement.relative(found, agreement.formula(*inputs.gradient_pair(SHAPES, "float32")))
            < 1e-6
        )
        with pytest.raises(RuntimeError, match="`jax` should answer to 'run', got the end"):
            client.call("run", "nobody")
    assert "KeyError" in capfd.readouterr().err


def test_parts_that_start_processes_import_neither_torch_nor_jax_into_the_worker():
    code = "import sys, benchmarks.peers.worker as w; print({'jax', 'torch'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_spread_of_one_value_is_that_value():
    assert spread([3.0]) == Spread(3.0, 3.0, 3.0)


def test_the_readme_carries_the_summary_and_the_figures_of_the_record():
    results = json.loads((ROOT / "benchmarks/results/peers.json").read_text())
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert " ".join(report.summary(results).split()) in readme
    assert results["failures"] == []
    assert results["environment"]["dirty"] is False
    speed = {(r["work"], r["contender"]): r["images/s"][0] for r in results["finetuning"]}
    l2_sp, distance = (
        [round(speed[work, by]) for by in ("torch by hand", "ours")]
        for work in ("L2-SP", "KnowDist")
    )
    assert f"(L2-SP: {l2_sp[0]} images/s, ours {l2_sp[1]}; KnowDist: {distance[0]}, ours" in readme
    assert f"ours {distance[1]})" in readme
    combined = {(r["work"], r["contender"]): r for r in results["combination"]}
    ours, by_hand = (combined["ViT-B", name] for name in ("ours", "optax by hand"))
    assert f"as fast as with ours ({ours['ms'][0]:.0f} ms)" in readme
    assert round(ours["ms"][0]) == round(by_hand["ms"][0])
    assert 2 * ours["from float64"] < by_hand["from float64"]
    assert f"quartiles of {results['rounds']} rounds" in readme
