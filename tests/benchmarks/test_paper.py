"""The paper's table of cells: what it holds, running and resuming it, pairing its seeds."""

import json

import pytest

from benchmarks.paper import __main__ as paper
from benchmarks.paper import cells, contents, report
from optax_dtnh.finetune.settings import DEFAULT_WEIGHTS
from tests.finetune.runs import ROOT, SMALL, write_digits, write_source

pytestmark = pytest.mark.slow

ALL = list(cells.cells(contents.TABLE))


def test_every_source_meets_every_target_method_and_seed_once_with_the_settings_of_the_protocol():
    names = [str(cell) for cell in ALL]
    transfers = 5 * 7 - 2  # the two Stanford Dogs networks do not go to Stanford Dogs
    assert len(names) == len(set(names)) == transfers * 5 * 5
    assert not any(name.startswith("dogs") and "/stanford_dogs/" in name for name in names)
    for cell in ALL[::25] + ALL[1::25] + ALL[3::25]:
        made = cells.settings(cell, ())
        stronger = cell.target.name == "stanford_dogs"
        default = DEFAULT_WEIGHTS.get(made.regularizer)
        assert made.weight == (default and default * (10 if stronger else 1))
        assert (made.method, made.seed) == (cell.method, cell.seed)
        expected = {"caltech256-30": 30, "caltech256-60": 60}.get(cell.target.name)
        assert made.train_per_class == expected


def main(*argv):
    return paper.main([str(argument) for argument in argv])


def test_a_cell_fails_runs_is_skipped_and_is_resumed(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    source, data = write_source(tmp_path / "a.safetensors"), write_digits(tmp_path / "digits")
    argv = ["--source", f"dogs-resnet50={source}", "--data", f"cifar10={data}"]
    argv += ["--only", "dogs-resnet50", "cifar10", "l2_sp+dtnh", "seed0", "--out", tmp_path / "out"]
    argv += ["--", *SMALL]
    assert main("--run", *argv, "--freeze", "conv1") == 1  # a cell that fails
    assert main("--run", *argv) == 0
    out = tmp_path / "out/dogs-resnet50/cifar10/l2_sp+dtnh/seed0"
    capfd.readouterr()
    assert main("--run", *argv) == 0
    assert "1 cells: 1 finished, 0 ready, 0 lacking." in capfd.readouterr().out
    (out / "summary.json").unlink()
    assert main("--list", *argv) == main("--run", *argv) == 0
    assert "1 cells: 0 finished, 1 ready, 0 lacking." in capfd.readouterr().out
    assert main(*argv[: -len(SMALL) - 1]) == 0
    (written,) = json.loads((tmp_path / "out/paper.json").read_text())["runs"]
    summary = json.loads((out / "summary.json").read_text())
    assert written["accuracy"] == pytest.approx(100 * summary["test_accuracy"])


def test_differences_are_paired_by_the_seeds_that_both_have():
    by_method = {"l2_sp": [10, 20], "l2_sp+dtnh": [12, 21, 36]}
    results = {
        "runs": [
            {"source": "s", "target": "t", "method": method, "seed": seed, "accuracy": x}
            for method, accuracies in by_method.items()
            for seed, x in reversed(list(enumerate(accuracies)))
        ]
    }
    assert report.against(results, ("s", "t"), "l2_sp+dtnh", "l2_sp")[0] == pytest.approx(1.5)
    assert report.against(results, ("s", "t"), "l2_sp", "bss") is None
