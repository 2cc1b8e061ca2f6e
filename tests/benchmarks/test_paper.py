"""The paper's table of cells: what it holds, what is missing, running, resuming, reporting."""

import contextlib
import fcntl
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import huggingface_hub.constants
import numpy as np
import pytest

from benchmarks.paper import __main__ as paper
from benchmarks.paper import cells, contents, report, runs, state
from benchmarks.paper.cells import Asset, Table, Target
from optax_dtnh.finetune import __main__ as finetune
from tests.finetune.runs import ROOT, SMALL, weights, write_digits, write_source

pytestmark = pytest.mark.slow

ALL = list(cells.cells(contents.TABLE))
SMALL_TABLE = Table(
    question="?",
    sources=[Asset("here", "here.safetensors")],
    data=[Asset("images", "images")],
    targets=[Target("task", "images", 4)],
    methods=["finetune", "l2_sp", "l2_sp+dtnh"],
    seeds=range(3),
    notes=["A note."],
)
# Stand-ins for the command, whose last argument is the folder.
FINISH = 'mkdir -p "$out"; echo {} > "$out/summary.json"'
FAIL = 'case "$*" in *"--method l2_sp "*) exit 2;; esac; ' + FINISH
HANG = """trap 'touch "$out/told"; exit 130' INT TERM
mkdir -p "$out"; echo $$ > "$out/begun"; for i in $(seq 1200); do sleep 0.05; done"""
DEAF = """trap '' INT TERM; mkdir -p "$out"; exec sleep 60"""


@pytest.fixture(scope="module", autouse=True)
def _ctrl_c_is_heard():
    """Whatever started the tests: in the background of a shell script the signal is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that puts a shell script in the place of the command, which logs calls."""

    def put(body):
        script, calls = tmp_path / f"{len(body)}.sh", tmp_path / "calls"
        script.write_text(f'for out; do :; done\necho "$*" >> "{calls}"\n{body}\n')
        monkeypatch.setattr(runs, "COMMAND", ("sh", str(script)))
        return lambda: calls.read_text().splitlines() if calls.exists() else []

    return put


def printed(*argv, code=0):
    """What the command prints, and that it ends with `code`."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            found = paper.main([str(argument) for argument in argv])
        except SystemExit as stop:
            found = stop.code
    assert found == code, stderr.getvalue()
    return stdout.getvalue() + stderr.getvalue()


def write_run(cell, out, *, step=9000, rate=100.0, **summary):
    """Write what a run of the cell leaves; one that is not finished without a summary."""
    folder, settings = out / str(cell), asdict(cells.settings(cell, ()))
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"settings": settings, "found": {}}))
    line = {"step": step, "loss": 1.0, "accuracy": 0.5, "conflict": None, "images_per_second": rate}
    (folder / "log.jsonl").write_text(json.dumps(line) + "\n")
    if summary:
        more = {"training_loss": 0.25, "conflict": None, "images_per_second": rate}
        more |= {"settings": settings, "environment": {"device": "toy"}}
        (folder / "summary.json").write_text(json.dumps(more | summary))


# --- cells as data


def test_every_source_meets_every_target_method_and_seed_once():
    names = [str(cell) for cell in ALL]
    transfers = 5 * 7 - 2  # the two Stanford Dogs networks do not go to Stanford Dogs
    assert len(names) == len(set(names)) == transfers * 5 * 5
    assert not any(name.startswith("dogs") and "/stanford_dogs/" in name for name in names)
    assert {cell.data.name for cell in ALL} == {x.name for x in contents.DATA}
    kinds = [set(words) for words in zip(*(cell.words() for cell in ALL), strict=True)]
    assert sum(map(len, kinds)) == len(set.union(*kinds))  # a word names one kind of thing


def test_settings_are_those_of_the_protocol():
    for cell in ALL[::25] + ALL[1::25] + ALL[3::25]:
        made = cells.settings(cell, ())
        stronger = cell.target.name == "stanford_dogs"
        assert made.weight == (None if cell.method == "finetune" else 0.1 if stronger else 0.01)
        assert (made.steps, made.batch_size, made.learning_rate) == (9000, 64, 0.01)
        assert (made.optimizer, made.schedule, made.head_decay) == ("sgd", "step", 0.01)
        assert (made.method, made.seed) == (cell.method, cell.seed)
        expected = {"caltech256-30": 30, "caltech256-60": 60}.get(cell.target.name)
        assert made.train_per_class == expected


def test_the_command_that_gets_a_source_is_one():
    for x in (x for x in contents.SOURCES if x.name.startswith("dogs")):
        python, m, module, *argv = shlex.split(x.how)
        assert (python, m, module) == ("python", "-m", "optax_dtnh.finetune")
        made = finetune.parser().parse_args(argv)
        assert f"{made.data} {x.where}" == f"tfds:{x.trained_on} {argv[-1]}/model.safetensors"


def test_words_of_a_kind_are_alternatives_and_kinds_narrow_each_other():
    kept = cells.selected(contents.TABLE, ["imagenet-resnet50", "cifar10", "cub200", "seed3"])
    assert {cell.words() for cell in kept} == {
        ("imagenet-resnet50", target, method, "seed3")
        for target in ("cifar10", "cub200")
        for method in contents.METHODS
    }
    assert cells.selected(contents.TABLE, []) == ALL


# --- list


def test_the_list_names_what_is_missing_and_how_to_get_it(tmp_path):
    listed = printed("--list", "--seeds", "1", "--methods", "finetune", "--out", tmp_path / "out")
    assert "needs source places365-resnet50 and data caltech256" in listed
    for x in contents.DATA:
        assert x.how in listed
    assert f"--out {tmp_path}/out/sources/dogs-resnet50" in listed
    assert "33 cells: 0 finished, 0 ready, 33 lacking." in listed.splitlines()


def test_the_list_finds_files_folders_prepared_sets_and_the_cache(tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").touch()
    (tmp_path / "images").mkdir()
    prepared = tmp_path / "tfds/cifar10/3.0.2"
    prepared.mkdir(parents=True)
    (prepared / "cifar10-train.array_record-00000-of-00001").touch()
    cache = tmp_path / "hub/models--timm--resnet50.tv_in1k"
    (cache / "snapshots/0123456").mkdir(parents=True)
    (cache / "snapshots/0123456/model.safetensors").touch()
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("0123456")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    argv = ["--source", f"places365-resnet50={tmp_path}/a.safetensors", "--seeds", "1"]
    argv += ["--data", f"mit_indoor67={tmp_path}/images", "--methods", "finetune"]
    argv += ["--out", tmp_path / "out", "--", "--data-dir", tmp_path / "tfds"]
    listed = printed("--list", *argv)
    ready = [line.split()[0] for line in listed.splitlines() if line.endswith("  ready")]
    assert ready == [
        f"{source}/{target}/finetune/seed0"
        for source in ("imagenet-resnet50", "places365-resnet50")
        for target in ("mit_indoor67", "cifar10")
    ]
    assert "needs source imagenet-resnet101" not in printed("--list", *argv, "--download")


def test_the_list_tells_how_far_cells_are_and_how_long_the_rest_takes(tmp_path):
    (tmp_path / "a.safetensors").touch()
    only = ["--only", "imagenet-resnet50", "mit_indoor67", "finetune", "l2_sp", "seed0", "seed1"]
    argv = ["--source", f"imagenet-resnet50={tmp_path}/a.safetensors", "--out", tmp_path / "out"]
    argv += ["--data", f"mit_indoor67={tmp_path}", *only]
    assert "No speed is measured yet" in printed("--list", *argv)
    options = paper.parser_of(paper.QUESTION).parse_args(["--list", *map(str, argv)])
    _, (first, second, *_) = paper.chosen(options)
    # 9000 steps of 64 images are 1.6 h at 100 images/s, and 0.8 h at 200.
    write_run(first, tmp_path / "out", test_accuracy=0.75)
    write_run(second, tmp_path / "out", step=4500, rate=200.0)
    lines = printed("--list", *argv).splitlines()
    assert [line.split("  ")[-1].strip() for line in lines[:4]] == [
        "finished, test accuracy 75.0%",
        "stopped after 4500 of 9000 steps, 24.0 min",
        "ready, 1.6 h",
        "ready, 48.0 min",
    ]
    assert lines[-1] == "At the speed measured, the training left takes 2.8 h."
    third = first._replace(method="bss")  # the speed of its source stands in
    rates = state.rates([first], tmp_path / "out")
    assert state.hours(third, state.state(third, (), tmp_path / "out"), rates) == 1.6
    (tmp_path / "a.safetensors").unlink()
    assert state.state(first, (), tmp_path / "out").missing == ()  # a finished cell lacks nothing


# --- run


def test_a_cell_runs_is_skipped_and_is_resumed_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    source, data = write_source(tmp_path / "a.safetensors"), write_digits(tmp_path / "digits")
    argv = ["--source", f"dogs-resnet50={source}", "--data", f"cifar10={data}"]
    argv += ["--only", "dogs-resnet50", "cifar10", "l2_sp+dtnh", "seed0", "--out", tmp_path / "out"]
    argv += ["--", *SMALL]
    assert "1 cells finished now, 0 before, of 1;" in printed("--run", *argv)
    out = tmp_path / "out/dogs-resnet50/cifar10/l2_sp+dtnh/seed0"
    first = weights(out)
    again = printed("--run", *argv)
    assert "0 cells finished now, 1 before, of 1;" in again
    assert "$ python" not in again
    (out / "summary.json").unlink()
    (out / "model.safetensors").unlink()
    last = max((out / "checkpoints").iterdir(), key=lambda path: int(re.sub(r"\D", "", path.name)))
    shutil.rmtree(last)
    assert "stopped after 5 of 5 steps" in printed("--list", *argv)
    assert "1 cells finished now" in printed("--run", *argv)
    second = weights(out)
    assert all((first[name] == second[name]).all() for name in first)
    assert "l2_sp+dtnh" in printed("--report", *argv)


def test_cells_that_lack_nothing_are_run_and_failures_make_the_exit_status_1(tmp_path, command):
    calls = command(FAIL)
    (tmp_path / "a.safetensors").touch()
    (tmp_path / "images").mkdir()
    argv = ["--source", f"places365-resnet50={tmp_path}/a.safetensors", "--seeds", "1"]
    argv += ["--data", f"mit_indoor67={tmp_path}/images", "--out", tmp_path / "out"]
    argv += ["--methods", "l2_sp", "l2_sp+dtnh"]
    told = printed("--run", *argv, "--", "--workers", "2", code=1)
    cell = "places365-resnet50/mit_indoor67/l2_sp"
    assert calls() == [
        f"--source {tmp_path}/a.safetensors --data {tmp_path}/images --method l2_sp{end} --seed 0 "
        f"--workers 2 --out {tmp_path}/out/{cell}{end}/seed0"
        for end in ("", "+dtnh")
    ]
    assert f"1 cells finished now, 0 before, of {33 * 2}" in told
    assert f"{33 * 2 - 2} lack something" in told
    assert f"1 failed: {cell}/seed0" in told


def test_when_time_is_up_the_running_cell_is_told_and_no_other_starts(tmp_path, command):
    calls = command(HANG)
    first, second, *_ = cells.cells(SMALL_TABLE)
    outcome = runs.run([first, second], (), tmp_path, seconds=4)
    assert outcome == runs.Outcome([], [], [], [first, second])
    assert (tmp_path / str(first) / "told").exists()
    assert len(calls()) == 1
    command(FINISH)
    assert runs.run([first, second], (), tmp_path, seconds=60).ran == [first, second]


def test_a_cell_that_does_not_listen_is_killed(tmp_path, command, monkeypatch):
    command(DEAF)
    monkeypatch.setattr(runs, "GRACE_S", 0.3)
    cell = next(cells.cells(SMALL_TABLE))
    start = time.monotonic()
    assert runs.run([cell], (), tmp_path, seconds=1).left == [cell]
    assert time.monotonic() - start < 30


def test_a_cell_of_another_process_is_left_to_it(tmp_path, command):
    command(FINISH)
    first, second, *_ = cells.cells(SMALL_TABLE)
    (tmp_path / "locks").mkdir()
    with (tmp_path / "locks" / str(first).replace("/", ".")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = runs.run([first, second], (), tmp_path, seconds=60)
    assert (outcome.busy, outcome.ran) == ([first], [second])
    assert runs.run([first], (), tmp_path, seconds=60).ran == [first]


def test_a_cell_outlives_a_killed_parent_and_is_not_started_twice(tmp_path, command):
    command(HANG)
    cell = next(cells.cells(SMALL_TABLE))
    begun = tmp_path / str(cell) / "begun"
    parent = subprocess.Popen([sys.executable, "-c", code_of_run(cell, tmp_path)], cwd=ROOT)
    wait_for(lambda: begun.exists() and begun.read_text())
    parent.kill()
    parent.wait()
    command(FINISH)
    assert runs.run([cell], (), tmp_path, seconds=60).busy == [cell]
    os.kill(int(begun.read_text()), signal.SIGTERM)
    wait_for(lambda: runs.run([cell], (), tmp_path, seconds=60).ran == [cell])


def test_ctrl_c_ends_both(tmp_path, command):
    command(HANG)
    cell = next(cells.cells(SMALL_TABLE))
    code = code_of_run(cell, tmp_path)
    options = {"cwd": ROOT, "start_new_session": True, "stderr": subprocess.DEVNULL}
    parent = subprocess.Popen([sys.executable, "-c", code], **options)
    wait_for((tmp_path / str(cell) / "begun").exists)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(timeout=60) != 0
    assert (tmp_path / str(cell) / "told").exists()


def code_of_run(cell, out):
    """Python code that runs the cell with the present stand-in."""
    return (
        "from pathlib import Path; from benchmarks.paper import runs\n"
        "from benchmarks.paper.cells import *\n"
        f"runs.COMMAND = {runs.COMMAND!r}\n"
        f"runs.run([{cell!r}], (), Path({str(out)!r}), seconds=60)"
    )


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- report


def finished_table(out, accuracies):
    """Write a run for each method and seed of the small table; percentages by method."""
    for cell in cells.cells(SMALL_TABLE):
        by_seed = accuracies.get(cell.method, [])
        if cell.seed < len(by_seed):
            conflict = None if cell.method == "finetune" else 0.5
            write_run(cell, out, test_accuracy=by_seed[cell.seed] / 100, conflict=conflict)
    return report.results(SMALL_TABLE, list(cells.cells(SMALL_TABLE)), out)


def test_differences_are_paired_by_seed(tmp_path):
    accuracies = {"finetune": [50, 60, 70], "l2_sp": [10, 20, 30], "l2_sp+dtnh": [12, 21, 36]}
    results = finished_table(tmp_path, accuracies)
    # Differences 2, 1, 6: mean 3, deviation sqrt(7), t = 4.3027 with 2 degrees of freedom.
    difference = report.against(results, ("here", "task"), "l2_sp+dtnh", "l2_sp")
    np.testing.assert_allclose(difference, [3, 4.302653 * np.sqrt(7 / 3)], rtol=1e-6)
    assert (
        "| l2_sp+dtnh | 0.01 | 3 | 23.0 ± 30.1 | +3.0 ± 6.6 | **-37.0 ± 6.6** | 0.250 | 50% |"
        in report.text(results)
    )


def test_only_common_seeds_are_compared_and_an_interval_without_0_is_bold(tmp_path):
    results = finished_table(tmp_path, {"l2_sp": [10, 20, 90], "l2_sp+dtnh": [12, 22.01]})
    # Differences 2 and 2.01: mean 2.005, deviation 0.00707, t = 12.706 with 1 degree of freedom.
    difference = report.against(results, ("here", "task"), "l2_sp+dtnh", "l2_sp")
    np.testing.assert_allclose(difference, [2.005, 12.706205 * 0.005], rtol=1e-6)
    assert "| **+2.0 ± 0.1** |" in report.text(results)
    assert "5 of 9 cells are finished" in report.text(results)
    assert report.against(results, ("here", "task"), "l2_sp", "finetune") is None


def test_a_report_is_recorded(tmp_path):
    for cell in ALL[:7]:
        write_run(cell, tmp_path, test_accuracy=0.5 + 0.01 * cell.seed)
    assert "7 of 825 cells are finished" in printed("--report", "--out", tmp_path)
    written = json.loads((tmp_path / "paper.json").read_text())
    assert [run["accuracy"] for run in written["runs"]] == [50.0] * 5 + [51.0] * 2
    assert written["runs_on"] == [{"device": "toy"}]


# --- errors

MISTAKES = {
    "only": (["--list", "--only", "cifar11"], "`--only` should be among"),
    "no cell": (["--list", "--only", "dogs-resnet50", "stanford_dogs"], "should leave a cell"),
    "place": (["--list", "--data", "caltech256"], "it should have the form NAME=PLACE"),
    "data": (["--list", "--data", "caltech=d"], "`--data` should name one of caltech256, "),
    "source": (["--list", "--source", "vgg=f"], "`--source` should name one of imagenet-resnet50"),
    "own": (["--list", "--", "--seed", "3"], "should be the same for all cells, got --seed"),
    "finetune": (["--list", "--", "--steps", "0"], "--steps: it should be a whole number from 1"),
    "nothing yet": (["--report"], "is finished. See what is ready with --list"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_costs_one_line(tmp_path, name):
    argv, message = MISTAKES[name]
    (line,) = printed("--out", tmp_path / "out", *argv, code=2).splitlines()
    assert message in line


def test_the_folder_of_a_cell_with_other_settings_is_refused(tmp_path):
    write_run(ALL[0], tmp_path, test_accuracy=0.5)
    (line,) = printed("--list", "--out", tmp_path, "--", "--steps", "8", code=2).splitlines()
    assert "steps was 9000 and is 8" in line
