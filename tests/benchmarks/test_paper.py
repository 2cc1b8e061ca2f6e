"""The paper's table of cells: what it holds, running and resuming it, pairing its seeds."""

import json
import os
import signal
import subprocess
import sys

import pytest

from benchmarks.paper import __main__ as paper
from benchmarks.paper import cells, contents, report, runs
from optax_dtnh.finetune.settings import DEFAULT_WEIGHTS
from tests.finetune.runs import ROOT, SMALL, wait_until, write_digits, write_source

pytestmark = pytest.mark.slow

ALL = list(cells.cells(contents.TABLE))
FIRST, SECOND = ALL[:2]
# Stand-ins for the command, whose last argument is the folder.
FINISH = 'mkdir -p "$out"; echo {} > "$out/summary.json"'
HANG = """trap 'touch "$out/told"; exit 130' INT TERM
mkdir -p "$out"; touch "$out/begun"; for i in $(seq 1200); do sleep 0.05; done"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that puts a shell script in the place of the command, which logs calls."""

    def put(body):
        script, calls = tmp_path / f"{len(body)}.sh", tmp_path / "calls"
        script.write_text(f'for out; do :; done\necho "$*" >> "{calls}"\n{body}\n')
        monkeypatch.setattr(runs, "COMMAND", ("sh", str(script)))
        return lambda: calls.read_text().splitlines() if calls.exists() else []

    return put


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


def test_a_cell_runs_is_skipped_and_is_resumed(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    source, data = write_source(tmp_path / "a.safetensors"), write_digits(tmp_path / "digits")
    argv = ["--source", f"dogs-resnet50={source}", "--data", f"cifar10={data}"]
    argv += ["--only", "dogs-resnet50", "cifar10", "l2_sp+dtnh", "seed0", "--out", tmp_path / "out"]
    argv += ["--", *SMALL]
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


def test_a_cell_that_fails_makes_the_exit_status_1(tmp_path, command):
    calls = command("exit 2")
    (tmp_path / "a.safetensors").touch()
    argv = ["--source", f"places365-resnet50={tmp_path}/a.safetensors", "--only", "seed0", "l2_sp"]
    argv += ["--data", f"mit_indoor67={tmp_path}", "--out", tmp_path / "out"]
    assert main("--run", *argv, "--", "--workers", "2") == 1
    assert calls() == [
        f"--source {tmp_path}/a.safetensors --data {tmp_path} --method l2_sp --seed 0 "
        f"--steps 9000 --workers 2 --out {tmp_path}/out/places365-resnet50/mit_indoor67/l2_sp/seed0"
    ]


def test_when_it_is_stopped_the_running_cell_saves_and_no_other_starts(tmp_path, command):
    calls = command(HANG)
    code = (
        "from pathlib import Path; from benchmarks.paper import runs\n"
        "from benchmarks.paper.cells import *\n"
        f"runs.COMMAND = {runs.COMMAND!r}\n"
        f"runs.run([{FIRST!r}, {SECOND!r}], (), Path({str(tmp_path)!r}))"
    )
    options = {"cwd": ROOT, "start_new_session": True, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **options) as stopped:
        wait_until(lambda: (tmp_path / str(FIRST) / "begun").exists())
        os.killpg(stopped.pid, signal.SIGINT)
        assert b"KeyboardInterrupt" in stopped.communicate()[1]
    assert (tmp_path / str(FIRST) / "told").exists()
    assert len(calls()) == 1
    command(FINISH)
    assert runs.run([FIRST, SECOND], (), tmp_path) == []
    assert all((tmp_path / str(cell) / "summary.json").exists() for cell in (FIRST, SECOND))


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
