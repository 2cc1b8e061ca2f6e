"""The comparison with torch and optax by hand: its record, and all of it that needs no torch."""

import numpy as np
import pytest

from benchmarks.peers import inputs, jax_combine, measure, work
from benchmarks.peers.client import started
from benchmarks.peers.jax_combine import RULES

SHAPES = {"a": (3, 5), "b": (7,)}


@pytest.mark.parametrize(
    ("contender", "found", "said"),
    [
        ("ours", {"difference": 1e-12}, ""),
        ("ours", {"difference": np.nan}, "w, ours: updates differ by nan, at most 1e-09"),
        ("ours", {"from float64": 2e-6}, "w, ours: 2.0e-06 from the formula, at most 1e-06"),
        ("ours", {"oracle": np.nan}, "w, ours: TorchJD PCD nan from the formula, at most 1e-09"),
        ("TorchJD PCGrad", {"difference": 0.1}, ""),
        ("TorchJD PCGrad", {}, "w, TorchJD PCGrad: no conflict in the numbers"),
    ],
)
def test_ours_has_to_agree_and_pcgrad_has_to_differ(contender, found, said):
    row = {"work": "w", "contender": contender, "difference": 1e-15} | found
    messages = work.missed(row, "float64")
    assert bool(messages) == bool(said)
    assert all(message.startswith(said) for message in messages)


@pytest.mark.slow
@pytest.mark.parametrize("contender", RULES)
def test_the_combination_in_jax_is_the_formula(contender):
    made = jax_combine.build({"contender": contender, "shapes": SHAPES})
    made.run()
    g, r = inputs.gradient_pair(SHAPES)
    assert work.relative(made.updates(), work.formula(g, r)) < 1e-6
    assert work.relative({k: g[k] + 0.5 * r[k] for k in g}, work.formula(g, r)) > 0.01


@pytest.mark.slow
def test_a_process_of_its_own_computes_the_same_and_its_end_is_an_error(tmp_path, capfd):
    spec = {"task": "combine", "contender": "ours", "shapes": SHAPES}
    expected = work.formula(*inputs.gradient_pair(SHAPES))
    with started("jax", 1, cache=tmp_path / "compiled") as call:
        assert work.relative(measure.updates_of(call, spec), expected) < 1e-6
        peak, imported = call("memory")
        assert 0 < imported <= peak
        with pytest.raises(RuntimeError, match="process of jax ended instead of answering to 'run"):
            call("run", "nobody")
    assert "KeyError" in capfd.readouterr().err
