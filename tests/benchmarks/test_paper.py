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

import huggingface_hub.constants
import matplotlib.image
import numpy as np
import pytest

from benchmarks.paper import __main__ as paper
from benchmarks.paper import cells, contents, needs, options, report, runs, state
from benchmarks.paper import on_digits as digits_finetune
from benchmarks.paper.cells import DataSet, Source, Table, Target
from optax_dtnh.finetune import options as tuning
from optax_dtnh.finetune.options import METHODS
from optax_dtnh.models import _hub
from tests.finetune.runs import ROOT, SMALL, weights, write_digits, write_source

ALL = list(cells.cells(contents.TABLE))
SMALL_TABLE = Table(
    question="?",
    sources=[Source("here", "here.safetensors", "", "else", "")],
    data=[DataSet("images", "images", "", "")],
    targets=[Target("task", "images", 4)],
    methods=["finetune", "l2_sp", "l2_sp+dtnh"],
    seeds=range(3),
    notes=["A note."],
)
# Stand-ins for the fine-tuning command, whose last argument is the folder.
FINISH = 'mkdir -p "$out"; echo {} > "$out/summary.json"'
FAIL = 'case "$*" in *"--method l2_sp "*) exit 2;; esac; ' + FINISH
HANG = """trap 'touch "$out/told"; exit 130' INT
mkdir -p "$out"; echo $$ > "$out/begun"; for i in $(seq 1200); do sleep 0.05; done"""
DEAF = """trap '' INT; mkdir -p "$out"; exec sleep 60"""


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


def printed(*argv, code=None):
    """What the command prints; `code` where it exits."""
    stdout, stderr = io.StringIO(), io.StringIO()
    exits = contextlib.nullcontext() if code is None else pytest.raises(SystemExit)
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), exits as stop:
        paper.main([str(argument) for argument in argv])
    assert code is None or stop.value.code == code
    return stdout.getvalue() + stderr.getvalue()


def write_run(cell, out, common=(), *, step=9000, rate=100.0, **summary):
    """Write what a run of the cell leaves; one that is not finished without a summary."""
    folder, settings = out / str(cell), cells.settings(cell, common)
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"settings": settings._asdict(), "found": {}}))
    line = {"step": step, "loss": 1.0, "accuracy": 0.5, "conflict": None, "images_per_second": rate}
    (folder / "log.jsonl").write_text(json.dumps(line) + "\n")
    if summary:
        more = {"training_loss": 0.25, "conflict": None, "images_per_second": rate}
        more |= {"settings": settings._asdict(), "environment": {"device": "toy"}}
        (folder / "summary.json").write_text(json.dumps(more | summary))


def finished_table(out, accuracies):
    """Write a run for each method and seed of the small table; percentages by method."""
    for cell in cells.cells(SMALL_TABLE):
        by_seed = accuracies.get(cell.method, [])
        if cell.seed < len(by_seed):
            conflict = None if cell.method == "finetune" else 0.5
            write_run(cell, out, test_accuracy=by_seed[cell.seed] / 100, conflict=conflict)
    return report.results(SMALL_TABLE, list(cells.cells(SMALL_TABLE)), out)


# --- cells as data


def test_every_source_meets_every_target_method_and_seed_once():
    names = [str(cell) for cell in ALL]
    transfers = 5 * 7 - 2  # the two Stanford Dogs networks do not go to Stanford Dogs
    assert len(names) == len(set(names)) == transfers * 5 * 5
    assert not any(name.startswith("dogs") and "/stanford_dogs/" in name for name in names)
    assert {cell.data.name for cell in ALL} == {x.name for x in contents.DATA}


def test_a_word_names_one_kind_of_thing():
    kinds = [set(names) for names in zip(*(cell.words() for cell in ALL), strict=True)]
    assert sum(map(len, kinds)) == len(set.union(*kinds))


def test_settings_are_those_of_the_protocol():
    for cell in ALL:
        made = cells.settings(cell, ())
        stronger = cell.target.name == "stanford_dogs"
        assert made.weight == (None if cell.method == "finetune" else 0.1 if stronger else 0.01)
        assert (made.steps, made.batch_size, made.learning_rate) == (9000, 64, 0.01)
        assert (made.optimizer, made.schedule, made.head_decay) == ("sgd", "step", 0.01)
        assert (made.method, made.seed) == (cell.method, cell.seed)
        expected = {"caltech256-30": 30, "caltech256-60": 60}.get(cell.target.name)
        assert made.train_per_class == expected


def test_everything_says_who_knows_it_and_what_gets_it():
    for x in (*contents.SOURCES, *contents.DATA):
        assert x.known in (contents.PAPER, contents.PROTOCOL, contents.OURS)
        assert x.how
    assert "could not be read" in contents.NOTES[0]


def test_the_commands_that_get_a_source_and_run_the_table_are_ones():
    for x in (x for x in contents.SOURCES if x.name.startswith("dogs")):
        argv = shlex.split(x.how)
        assert argv[:3] == ["python", "-m", "optax_dtnh.finetune"]
        made = tuning.parse(tuning.parser(None), argv[3:])[1]
        assert f"{made.data} {x.where}" == f"tfds:{x.trained_on} {argv[-1]}/model.safetensors"
    page = (ROOT / "benchmarks/README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"python -m benchmarks\.paper (--run .* --workers .*)", page)
    assert len(commands) == 1
    chosen = options.parser(None).parse_args(shlex.split(commands[0]))
    table = options.changed(contents.TABLE, chosen)
    assert [x.name for x in (*table.sources, *table.data) if x.where is None] == []
    assert cells.settings(next(cells.cells(table)), table.arguments).workers == 8


@pytest.mark.parametrize("end", ["", "@v1", "@refs/pr/3", "/a/b.safetensors", "@v1/b.pth"])
def test_names_of_the_hub_are_read_as_the_models_read_them(end):
    ours, theirs = (x.fullmatch("hf:owner/name" + end) for x in (needs.HUB_SOURCE, _hub.SOURCE))
    assert ours.groups() == theirs.groups()


def test_words_of_a_kind_are_alternatives_and_kinds_narrow_each_other():
    kept = cells.selected(contents.TABLE, ["imagenet-resnet50", "cifar10", "cub200", "seed3"])
    assert {cell.words() for cell in kept} == {
        ("imagenet-resnet50", target, method, "seed3")
        for target in ("cifar10", "cub200")
        for method in contents.METHODS
    }
    assert cells.selected(contents.TABLE, []) == ALL


# --- list


def test_the_list_names_what_is_missing_without_jax():
    code = (
        "import sys; from benchmarks import paper\n"
        "paper.main(['--list', '--out', 'nowhere'])\n"
        "assert not {'jax', 'numpy', 'tensorflow_datasets'} & sys.modules.keys()"
    )
    listed = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
    ).stdout
    lines = listed.splitlines()
    assert [line.split()[0] for line in lines[: len(ALL)]] == [str(cell) for cell in ALL]
    assert "needs source places365-resnet50 and data caltech256" in listed
    for x in contents.DATA:
        assert x.how in listed
    assert "python -m optax_dtnh.finetune --method finetune --data tfds:stanford_dogs" in listed
    assert "--out nowhere/sources/dogs-resnet50" in listed
    assert "825 cells: 0 finished, 0 ready, 825 lacking." in lines


def test_the_list_finds_files_folders_prepared_sets_and_the_cache(tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").touch()
    (tmp_path / "images").mkdir()
    prepared = tmp_path / "tfds/cifar10/3.0.2"
    prepared.mkdir(parents=True)
    (prepared / "cifar10-train.array_record-00000-of-00001").touch()
    cached = tmp_path / "hub/models--timm--resnet50.tv_in1k"
    for path, text in (("refs/main", "abc"), ("snapshots/abc/model.safetensors", "")):
        (cached / path).parent.mkdir(parents=True)
        (cached / path).write_text(text)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    argv = ["--source", f"places365-resnet50={tmp_path}/a.safetensors", "--out", tmp_path / "out"]
    argv += ["--data", f"mit_indoor67={tmp_path}/images", "--only", "finetune", "seed0"]
    listed = printed("--list", *argv, "--", "--data-dir", tmp_path / "tfds")
    ready = [line.split()[0] for line in listed.splitlines() if line.endswith("  ready")]
    assert ready == [
        f"{source}/{target}/finetune/seed0"
        for source in ("imagenet-resnet50", "places365-resnet50")
        for target in ("mit_indoor67", "cifar10")
    ]
    listed = printed("--list", *argv, "--", "--download")
    assert "imagenet-resnet101/mit_indoor67/finetune/seed0" in listed
    assert "needs source imagenet-resnet101" not in listed


def test_the_list_tells_how_far_cells_are_and_how_long_the_rest_takes(tmp_path):
    places = ["--source", f"imagenet-resnet50={tmp_path}/a.safetensors", "--out", tmp_path / "out"]
    (tmp_path / "a.safetensors").touch()
    only = ["--only", "imagenet-resnet50", "mit_indoor67", "finetune", "l2_sp", "seed0", "seed1"]
    argv = [*places, "--data", f"mit_indoor67={tmp_path}", *only]
    assert "No speed is measured yet" in printed("--list", *argv)
    source = Source("imagenet-resnet50", f"{tmp_path}/a.safetensors", "", "", "")
    table = contents.TABLE._replace(
        sources=[source], data=[x._replace(where=str(tmp_path)) for x in contents.DATA]
    )
    chosen = cells.selected(table, only[1:])
    # 9000 steps of 64 images are 1.6 h at 100 images/s, and 0.8 h at 200.
    write_run(chosen[0], tmp_path / "out", test_accuracy=0.75)
    write_run(chosen[1], tmp_path / "out", step=4500, rate=200.0)
    lines = printed("--list", *argv).splitlines()
    said = [line.split("  ")[-1].strip() for line in lines[:4]]
    assert said == [
        "finished, test accuracy 75.0%",
        "stopped after 4500 of 9000 steps, 24.0 min",
        "ready, 1.6 h",
        "ready, 48.0 min",
    ]
    assert lines[-1] == "At the speed measured, the training left takes 2.8 h."


def test_a_speed_of_the_source_stands_in_for_one_of_the_method(tmp_path):
    finetune, l2_sp, *_ = cells.cells(SMALL_TABLE)
    write_run(finetune, tmp_path, test_accuracy=0.5, rate=160.0)
    rates = state.rates([finetune, l2_sp], tmp_path)
    assert state.hours(l2_sp, state.state(l2_sp, (), tmp_path), rates) == 1.0


def test_the_list_does_without_the_client_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    listed = printed("--list", "--only", "seed0", "cifar10", "finetune", "--out", tmp_path)
    assert "hf download timm/resnet50.tv_in1k model.safetensors" in listed


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
    shutil.rmtree(out / "checkpoints/step-00000005")
    assert "stopped after 5 of 5 steps" in printed("--list", *argv)
    assert "1 cells finished now" in printed("--run", *argv)
    second = weights(out)
    assert all((first[name] == second[name]).all() for name in first)
    assert "l2_sp+dtnh" in printed("--report", *argv)


def test_a_cell_that_lacks_something_is_never_started(tmp_path, command):
    calls = command(FINISH)
    (tmp_path / "a.safetensors").touch()
    (tmp_path / "images").mkdir()
    argv = ["--source", f"places365-resnet50={tmp_path}/a.safetensors", "--seeds", "1"]
    argv += ["--data", f"mit_indoor67={tmp_path}/images", "--out", tmp_path / "out"]
    argv += ["--methods", "bss", "bss+dtnh"]
    told = printed("--run", *argv)
    folders = [
        f"{tmp_path}/out/places365-resnet50/mit_indoor67/bss{e}/seed0" for e in ("", "+dtnh")
    ]
    assert [call.split()[-1] for call in calls()] == folders
    assert "2 cells finished now" in told
    assert f"{33 * 2 - 2} lack something" in told


def test_the_command_gets_the_arguments_of_the_cell(tmp_path, command):
    calls = command(FINISH)
    runs.run(list(cells.cells(SMALL_TABLE))[:1], ["--workers", "2"], tmp_path, seconds=60)
    assert calls() == [
        "--source here.safetensors --data images --train-per-class 4 --method finetune --seed 0 "
        f"--workers 2 --out {tmp_path}/here/task/finetune/seed0"
    ]


def test_a_cell_that_fails_does_not_stop_the_others(tmp_path, command):
    command(FAIL)
    chosen = [cell for cell in cells.cells(SMALL_TABLE) if cell.seed == 0]
    outcome = runs.run(chosen, (), tmp_path, seconds=60)
    assert [cell.method for cell in outcome.ran] == ["finetune", "l2_sp+dtnh"]
    assert [cell.method for cell in outcome.failed] == ["l2_sp"]


def test_failures_are_named_and_make_the_exit_status_1(tmp_path, command):
    command("exit 2")
    (tmp_path / "a.safetensors").touch()
    argv = ["--source", f"places365-resnet50={tmp_path}/a.safetensors", "--out", tmp_path / "out"]
    argv += ["--data", f"cub200={tmp_path}", "--only", "seed0", "finetune", "cub200"]
    told = printed("--run", *argv, "places365-resnet50", code=1)
    assert "1 failed: places365-resnet50/cub200/finetune/seed0" in told


def test_when_time_is_up_the_running_cell_is_told_and_no_other_starts(tmp_path, command):
    calls = command(HANG)
    first, second, *_ = cells.cells(SMALL_TABLE)
    outcome = runs.run([first, second], (), tmp_path, seconds=4)
    assert outcome == runs.Outcome([], [], [], [first, second])
    assert (tmp_path / str(first) / "told").exists()
    assert len(calls()) == 1
    command(FINISH)
    assert runs.run([first, second], (), tmp_path, seconds=60).ran == [first, second]


def test_a_cell_that_does_not_listen_is_terminated(tmp_path, command, monkeypatch):
    command(DEAF)
    monkeypatch.setattr(runs, "GRACE_S", 0.3)
    cell = next(cells.cells(SMALL_TABLE))
    start = time.monotonic()
    assert runs.run([cell], (), tmp_path, seconds=1).left == [cell]
    assert time.monotonic() - start < 30


def test_the_budget_is_in_minutes(tmp_path, command):
    calls = command(HANG)
    (tmp_path / "a.safetensors").touch()
    argv = ["--source", f"places365-resnet50={tmp_path}/a.safetensors", "--out", tmp_path / "out"]
    argv += ["--data", f"cub200={tmp_path}", "--only", "cub200", "places365-resnet50", "seed0"]
    told = printed("--run", "--budget", "0.05", *argv)
    assert "0 cells finished now, 0 before, of 5; 5 left for lack of time" in told
    assert len(calls()) == 1


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
    os.kill(int(begun.read_text()), signal.SIGINT)
    wait_for(lambda: runs.run([cell], (), tmp_path, seconds=60).ran == [cell])


def test_ctrl_c_ends_both(tmp_path, command):
    command(HANG)
    cell = next(cells.cells(SMALL_TABLE))
    parent = subprocess.Popen(
        [sys.executable, "-c", code_of_run(cell, tmp_path)],
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    wait_for((tmp_path / str(cell) / "begun").exists)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(timeout=60) != 0
    assert (tmp_path / str(cell) / "told").exists()


def test_a_stopped_table_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run", lambda *args, **options: os.kill(os.getpid(), signal.SIGINT))
    assert "The same command goes on" in printed("--run", "--out", tmp_path / "out", code=130)


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


def test_differences_are_paired_by_seed(tmp_path):
    accuracies = {"finetune": [50, 60, 70], "l2_sp": [10, 20, 30], "l2_sp+dtnh": [12, 21, 36]}
    results = finished_table(tmp_path, accuracies)
    pair = ("here", "task")
    # Differences 2, 1, 6: mean 3, deviation sqrt(7), t = 4.3027 with 2 degrees of freedom.
    difference = report.against(results, pair, "l2_sp+dtnh", "l2_sp")
    np.testing.assert_allclose(difference, [3, 4.302653 * np.sqrt(7 / 3)], rtol=1e-6)
    # 50, 60, 70: mean 60, deviation 10.
    mean = report.accuracy(results, pair, "finetune")
    np.testing.assert_allclose(mean, [60, 4.302653 * 10 / np.sqrt(3)], rtol=1e-6)
    rows = [line.split("  ") for line in report.text(results).splitlines()]
    row = next([x.strip() for x in row if x] for row in rows if "l2_sp+dtnh" in row)
    assert row == [
        *("l2_sp+dtnh", "0.01", "3", "23.0 ± 30.1", "+3.0 ± 6.6", "-37.0 ± 6.6", "0.250", "50%")
    ]
    assert "l2_sp+dtnh: no clear change (+3.0 ± 6.6)" in report.text(results)


def test_only_common_seeds_are_compared(tmp_path):
    results = finished_table(tmp_path, {"l2_sp": [10, 20, 90], "l2_sp+dtnh": [12, 21]})
    # Differences 2 and 1: mean 1.5, deviation sqrt(1/2), t = 12.706 with 1 degree of freedom.
    difference = report.against(results, ("here", "task"), "l2_sp+dtnh", "l2_sp")
    np.testing.assert_allclose(difference, [1.5, 12.706205 / 2], rtol=1e-6)
    assert "5 of 9 cells are finished" in report.note(results)
    assert report.against(results, ("here", "task"), "l2_sp", "finetune") is None


def test_the_markdown_is_bold_where_the_interval_excludes_0(tmp_path):
    accuracies = {"finetune": [50, 60, 70], "l2_sp": [10, 20, 30], "l2_sp+dtnh": [15, 25, 35.1]}
    table = report.markdown(finished_table(tmp_path, accuracies))
    assert table.splitlines() == [
        "| source → target | finetune | l2_sp+dtnh |",
        "| --- | --- | --- |",
        "| here → task | 60.0 ± 24.8 | 20.0 → 25.0 (**+5.0 ± 0.1**) |",
    ]


def test_a_report_is_printed_written_and_plotted(tmp_path):
    for cell in ALL[:7]:
        write_run(cell, tmp_path, test_accuracy=0.5 + 0.01 * cell.seed)
    told = printed("--report", "--out", tmp_path)
    assert "7 of 825 cells are finished" in told
    assert "could not be read" in (tmp_path / "table.md").read_text()
    written = json.loads((tmp_path / "table.json").read_text())
    assert [run["accuracy"] for run in written["runs"]] == [50.0] * 5 + [51.0] * 2
    assert written["runs_on"] == [{"device": "toy"}]
    assert written["notes"] == list(contents.TABLE.notes)
    assert written["known_from"]["cub200"] == contents.OURS
    assert matplotlib.image.imread(tmp_path / "table.png").std() > 0


# --- errors

MISTAKES = {
    "nothing to do": ([], "one of the arguments --list --run --report is required"),
    "only": (["--list", "--only", "cifar11"], "`--only` should be among"),
    "no cell": (["--list", "--only", "dogs-resnet50", "stanford_dogs"], "should leave a cell"),
    "place": (["--list", "--data", "caltech256"], "it should have the form NAME=PLACE"),
    "data": (["--list", "--data", "caltech=d"], "`--data` should name one of caltech256, "),
    "source": (["--list", "--source", "vgg=f"], "`--source` should name one of imagenet-resnet50"),
    "budget": (["--run", "--budget", "0"], "it should be a number of minutes > 0, got '0'"),
    "seeds": (["--list", "--seeds", "0"], "it should be a whole number from 1 to 100"),
    "own": (["--list", "--", "--seed", "3"], "should be the same for all cells, got --seed"),
    "finetune": (["--list", "--", "--steps", "0"], "--steps: it should be a whole number from 1"),
    "nothing yet": (["--report"], "`--report` should have finished cells to tell of, got none"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_costs_one_line(tmp_path, name):
    argv, message = MISTAKES[name]
    (line,) = printed("--out", tmp_path / "out", *argv, code=2).splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_cell_with_other_settings_is_refused(tmp_path):
    write_run(ALL[0], tmp_path, test_accuracy=0.5)
    (line,) = printed("--list", "--out", tmp_path, "--", "--steps", "8", code=2).splitlines()
    assert "steps was 9000 and is 8" in line


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (line,) = printed("--run", "--out", tmp_path / "file/out", code=2).splitlines()
    assert "`--out` should be a folder that can be written to" in line


# --- the digits


def test_the_parts_of_the_digits_are_whole_and_disjoint(tmp_path):
    digits_finetune.write_images(tmp_path)
    files = {part: list((tmp_path / part).glob("*/*.png")) for part in digits_finetune.PARTS}
    assert {part: len(found) for part, found in files.items()} == digits_finetune.PARTS
    names = [file.name for found in files.values() for file in found]
    assert len(names) == len(set(names)) == 1797
    assert all(len(list((tmp_path / part).iterdir())) == 10 for part in files)


def test_the_digits_run_every_method():
    assert {cell.method for cell in cells.cells(digits_finetune.TABLE)} == set(METHODS)
    for cell in cells.cells(digits_finetune.TABLE):
        cells.settings(cell, digits_finetune.TABLE.arguments)


def test_a_method_or_source_below_the_bar_is_named():
    run = {"method": "bss", "seed": 0, "accuracy": 30.0}
    results = {"source_accuracy": 95.0, "chance": 10.0, "runs": [run]}
    assert digits_finetune.failures(results) == []
    results = {"source_accuracy": 94.9, "chance": 10.0, "runs": [run | {"accuracy": 29.9}]}
    source, method = digits_finetune.failures(results)
    assert source == "The source classifies only 94.9 %."
    assert method == "bss with seed 0 classifies only 29.9 %."
