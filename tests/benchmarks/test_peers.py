"""The comparison with torch and optax by hand: its record, and all of it that needs no torch."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness import record
from benchmarks.harness.command import RESULTS
from benchmarks.peers import __main__ as peers
from benchmarks.peers import agreement, inputs, jax_side, measure, waiting, work
from benchmarks.peers.client import started
from benchmarks.peers.jax_side import RULES
from tests.pages.pages import ROOT

SHAPES = {"a": (3, 5), "b": (7,)}

# --- the claims


def test_the_claims_hold_on_the_record_of_everybody():
    results = record.read(RESULTS / "peers.json")
    assert peers.failures(results) == []
    assert results["bars"] == agreement.BARS | {"flops": measure.FLOPS}
    for table, works in (("combination", work.TREES), ("step", work.NETWORKS)):
        rows = {(row["work"], row["contender"]) for row in results[table]}
        assert rows == {(name, by) for name in works for by in work.FRAMEWORK}
    assert len(results["finetuning"]) == len(work.SINGLE_STEPS) + len(work.TUNINGS)


@pytest.mark.parametrize(
    ("contender", "found", "said"),
    [
        ("ours", {"difference": 1e-12}, None),
        ("ours", {"difference": 1e-8}, "w, ours: updates differ by 1.0e-08, at most 1e-09"),
        ("ours", {"difference": np.nan}, "w, ours: updates differ by nan, at most 1e-09"),
        ("ours", {"from float64": 2e-6}, "w, ours: 2.0e-06 from the formula, at most 1e-06"),
        ("ours", {"flops": 1.7}, "w, ours: flops 1.700, at most 1.67"),
        ("TorchJD PCGrad", {"difference": 0.1}, None),
        ("TorchJD PCGrad", {}, "w, TorchJD PCGrad: no conflict in the numbers"),
        ("optax by hand", {"difference": 0.1}, None),
    ],
)
def test_ours_has_to_agree_and_pcgrad_has_to_differ(contender, found, said):
    row = {"work": "w", "contender": contender, "difference": 1e-15} | found
    messages = measure.missed("step", row)
    assert messages == [] if said is None else messages[0].startswith(said)


# --- the numbers


@pytest.mark.slow
@pytest.mark.parametrize("contender", RULES)
def test_the_combination_in_jax_is_the_formula(contender):
    spec = {"task": "combine", "contender": contender, "shapes": SHAPES, "dtype": "float32"}
    made = jax_side.build(spec)
    made.run()
    g, r = inputs.gradient_pair(SHAPES, "float32")
    assert agreement.relative(made.updates(), agreement.formula(g, r)) < 1e-6
    assert agreement.relative({k: g[k] + 0.5 * r[k] for k in g}, agreement.formula(g, r)) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_the_gradients_of_every_problem_conflict(network, quickly_compiled):
    params, batch = jax.tree.map(jnp.asarray, inputs.problem(network, "float32"))
    fun = jax_side.losses_of(jax_side.NETWORKS[network])
    g, r = (jax.jit(jax.grad(lambda p, i=i: fun(p, batch)[i]))(params) for i in (0, 1))
    assert sum(float((g[k] * r[k]).sum()) for k in g) < 0


@pytest.mark.slow
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


# --- the processes


@pytest.mark.slow
def test_a_process_of_its_own_computes_the_same_and_its_end_is_an_error(tmp_path, capfd):
    spec = {"task": "combine", "contender": "ours", "shapes": SHAPES, "dtype": "float32"}
    expected = agreement.formula(*inputs.gradient_pair(SHAPES, "float32"))
    with started("jax", 1, cache=tmp_path / "compiled") as client:
        assert client.call("build", "ours", spec)["flops"] > 0
        assert agreement.relative(client.updates("ours", tmp_path), expected) < 1e-6
        memory = client.call("memory")
        assert 0 < memory["imported"] <= memory["peak"]
        with pytest.raises(RuntimeError, match="process of jax ended instead of answering to 'run"):
            client.call("run", "nobody")
    assert "KeyError" in capfd.readouterr().err


@pytest.mark.slow
def test_the_process_of_one_framework_does_not_import_the_other():
    code = "import sys, benchmarks.peers.worker; print({'jax', 'torch'} & set(sys.modules))"
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
    assert subprocess.run([sys.executable, "-c", code], **options).stdout == "set()\n"


@pytest.mark.slow
def test_waiting_is_made_passive_and_another_way_is_refused():
    environ = {"OMP_WAIT_POLICY": "passive"}
    waiting.passive(environ)
    assert environ == waiting.PASSIVE | {"OMP_WAIT_POLICY": "passive"}
    for name, value in (("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "infinite")):
        with pytest.raises(ValueError, match=rf"`{name}` should be \w+, got '{value}'. Unset it"):
            waiting.passive({name: value})


@pytest.mark.slow
def test_more_threads_than_cores_are_refused(monkeypatch):
    pinned = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 2}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, c: pinned.append(c), raising=False)
    with pytest.raises(ValueError, match="`--threads` should be from 1 to 2, the cores"):
        waiting.pin(3)
    waiting.pin(1)
    assert pinned == [[2]]


@pytest.mark.slow
def test_a_missing_package_is_named_in_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(peers, "NEEDED", ("no_such_package",))
    with pytest.raises(SystemExit) as refusal:
        peers.main(["--out", str(tmp_path)])
    assert refusal.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "`no_such_package`, which is compared with, is not installed. Run `make peers`" in line
