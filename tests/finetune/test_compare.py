"""The command `compare` from outside: what it leaves, how it is stopped and resumed."""

import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from optax_dtnh.finetune.compare import result
from optax_dtnh.finetune.compare.candidates import AVERAGE, Candidate
from optax_dtnh.finetune.compare.choice import Decision, Interval
from tests.finetune.runs import assert_same_model, printed_error, run, started, wait_until

slow = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("quickly_compiled")
FEW = ("--methods", "average", "l2_sp", "l2_sp+dtnh", "--weights", "0.01", "1", "--folds", "2")
RUNS = 10  # trained; the average needs none of its own
L2_SP = Candidate("l2_sp", 1.0)


@pytest.fixture(scope="module")
def compared(arguments, tmp_path_factory):
    """A finished comparison, and what it printed."""
    out = tmp_path_factory.mktemp("compare") / "out"
    return out, run(*arguments, *FEW, out=out, command="compare")


def of(out):
    return json.loads((out / "comparison.json").read_text())


def lines(out):
    return [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]


def without_seconds(out):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines(out)]


def test_a_comparison_leaves_figures_report_and_models(compared):
    out, shown = compared
    files = "chosen comparison.json comparison.png finetune report.html runs.jsonl settings.json"
    assert {p.name for p in out.iterdir()} == {*files.split()}
    found = of(out)
    assert [x["method"] for x in found["candidates"]][:3] == ["finetune", AVERAGE, "l2_sp"]
    assert all(x["runs"] == 2 for x in found["candidates"])
    assert found["test"]["finetune"]["images"] == 160
    assert f"{RUNS} of {RUNS} runs" in shown
    assert found["why"] in shown
    assert run(next((out / "..").resolve().rglob("*.png")), out=out / "chosen", command="predict")


def test_the_folder_of_a_comparison_is_answered_with_that_of_its_model(compared):
    line = printed_error("--out", compared[0], command="evaluate")
    assert line.endswith(f"Name '{compared[0]}/chosen', which holds the model of this comparison.")


def test_candidates_are_paired_and_each_fold_is_finished_before_the_next(compared):
    blocks = [line["fold"] for line in lines(compared[0])]
    assert blocks == sorted(blocks)
    by_candidate = {}
    for line in lines(compared[0]):
        by_candidate.setdefault(line["method"], set()).add((line["seed"], line["fold"]))
    assert all(found == {(0, 0), (0, 1)} for found in by_candidate.values())


def test_the_report_loads_nothing(compared):
    text = (compared[0] / "report.html").read_text()
    loaded = re.findall(r"(?:src|href)=.(.*?)[\"'>]", text)
    assert all(re.match("data:image/(jpeg|svg.xml);base64,", x) for x in loaded)
    assert not re.search("https?:|@import|url\\(", text)
    for part in ("Validation", "Test", "Training on all images", "Data", "Commands"):
        assert f"<h2>{part}" in text


def test_a_finished_comparison_says_so(compared, arguments):
    shown = run(*arguments, *FEW, out=compared[0], command="compare")
    assert f"is finished. {of(compared[0])['why']}" in shown
    assert "fold 1" not in shown


@slow
def test_the_commands_in_the_report_give_its_runs(compared, tmp_path):
    found = of(compared[0])
    for command, folder in (
        (found["candidates"][0]["command"].replace(" DIR", f" {tmp_path / 'run'}"), "run"),
        (found["command"].replace(str(compared[0]), str(tmp_path / "all")), "all/finetune"),
    ):
        _, _, _, name, *argv = shlex.split(command)
        at = argv.index("--out")
        run(*argv[:at], *argv[at + 2 :], out=argv[at + 1], command=name)
        assert_same_model(compared[0] / "finetune", tmp_path / folder)
    assert without_seconds(tmp_path / "all") == without_seconds(compared[0])


def unfinished(compared, tmp_path, kept, end=""):
    """A copy of a comparison as if it were killed after some lines and a part of the next."""
    out = Path(shutil.copytree(compared[0], tmp_path / "out", symlinks=True))
    text = (out / "runs.jsonl").read_text().splitlines(keepends=True)
    (out / "runs.jsonl").write_text("".join(text[:kept]) + end)
    for name in ("comparison.json", "chosen"):
        (out / name).unlink()
    shutil.rmtree(out / "finetune")
    return out


@pytest.mark.parametrize(("kept", "done"), [(4, 3), (1, 0)])  # with and without the average's line
def test_a_killed_comparison_is_resumed(compared, arguments, tmp_path, kept, done):
    out = unfinished(compared, tmp_path, kept, end='{"method": "')
    shown = run(*arguments, *FEW, out=out, command="compare")
    assert f"{done} of 10 runs" in shown
    assert len(re.findall("fold ., seed 0:", shown)) == 10 - done
    assert without_seconds(out)[-RUNS - 2 :] == without_seconds(compared[0])
    assert_same_model(out / "chosen", compared[0] / "chosen")


SCORE = {"method": "l2_sp", "weight": 1, "seed": 0, "fold": 0, "seconds": 1}
SCORES = [json.dumps(SCORE | {"accuracy": x}) + "\n" for x in ("x", 50, float("nan"))]


@pytest.mark.parametrize("end", ["{}\n", "half\n", *SCORES])
def test_a_damaged_line_is_named(compared, arguments, tmp_path, end):
    out = unfinished(compared, tmp_path, kept=4, end=end)
    line = printed_error(*arguments, *FEW, "--out", out, command="compare")
    assert "`--out` should hold the runs.jsonl that a run has written" in line


@slow
def test_a_signal_ends_it_with_a_report_and_it_can_be_resumed(compared, arguments, tmp_path):
    out = tmp_path / "out"
    process = started([*arguments, *FEW], out, command="compare", stderr=subprocess.PIPE)
    wait_until(lambda: (out / "runs.jsonl").exists(), process)
    process.send_signal(signal.SIGINT)
    assert b"Run the same command again to resume" in process.communicate()[1]
    assert process.returncode == 130
    assert of(out)["test"] is None
    assert "have not been tested" in (out / "report.html").read_text()
    before = lines(out)
    run(*arguments, *FEW, out=out, command="compare")
    assert lines(out)[: len(before)] == before
    names = ("method", "weight", "seed", "fold")
    assert [[x[n] for n in names] for x in lines(out)] == [
        [x[n] for n in names] for x in lines(compared[0])
    ]


def test_what_is_finished_within_the_budget_is_reported(arguments, tmp_path):
    out = tmp_path / "out"
    # A length in epochs, which are as many steps: it is known only once the data are open.
    argv = [{"--steps": "--epochs", "5": "1"}.get(x, x) for x in (*arguments, *FEW)]
    shown = run(*argv, "--budget", "0.001", out=out, command="compare")
    assert "Another run would exceed the budget." in shown
    assert [line["method"] for line in lines(out)] == ["finetune", AVERAGE]
    assert of(out)["chosen"] == {"method": "finetune", "weight": None}
    assert "candidates cannot be told apart by 0 of 2 folds and seeds" in of(out)["why"]
    assert (out / "chosen" / "model.safetensors").exists()
    (out / "comparison.json").unlink()  # killed during the final runs: they keep their choice
    shown = run(*argv, out=out, command="compare")
    assert "The model is in" in shown
    assert len(lines(out)) == 2


@pytest.mark.parametrize("chosen", [Candidate(AVERAGE), L2_SP])
def test_the_choice_is_trained_on_all_images(compared, arguments, tmp_path, monkeypatch, chosen):
    out = unfinished(compared, tmp_path, kept=RUNS + 2)
    decision = Decision(chosen, chosen, chosen, Interval(0.1, 0.01))
    monkeypatch.setattr(result, "decide", lambda _: decision)
    shown = run(*arguments, *FEW, out=out, command="compare")
    found = of(out)["test"]
    gain = found["chosen"]["accuracy"] - found["finetune"]["accuracy"]
    np.testing.assert_allclose(found["difference"]["mean"], gain, atol=1e-9)
    assert "On the 160 test images, it gains" in shown
    if chosen.method == AVERAGE:
        assert "Test accuracy" in run(out=out / "chosen", command="evaluate")
        both = out / "finetune", out / "chosen"
        _, *rows = run(*both, out=tmp_path / "both", command="compare").splitlines()
        assert [row.split()[1] for row in rows[:2]] == ["finetune", "average"]
    else:
        run(*arguments, "--method", "l2_sp", "--weight", "1", out=tmp_path / "run")
        assert_same_model(tmp_path / "run", out / "chosen")


def test_another_comparison_is_refused_in_the_folder(compared, arguments):
    for extra, changed in (
        (["--folds", "3"], "folds was 2 and is 3"),
        (["--weights", "0.01"], "candidates was"),
        (["--seeds", "2"], "seeds was 1 and is 2"),
        (["--seed", "1"], "seed was 0 and is 1"),
    ):
        line = printed_error(*arguments, *FEW, *extra, "--out", compared[0], command="compare")
        assert changed in line


UNFIT = {
    "--methods finetune": "--methods: invalid choice: 'finetune' (choose from 'average',",
    "--folds 1": "--folds: it should be a whole number from 2 to",
    "--folds 9": "`--folds` should be at most 4, the number of training images",
    "--methods delta": "argument --methods: invalid choice: 'delta'",
    "--methods l2_sp,bss": "Separate values by spaces",
    "--methods average --granularity leaf": "`--granularity` should come with a method that ends",
    "--methods average --weights 1": "`--weights` should come with a regularizer",
    "--weights 0": "it should be a number > 0, got '0'",
    "--budget 0": "it should be a number > 0, got '0'",
    "--devices 9": "`--devices` should be at most",
}


@pytest.mark.parametrize("extra", UNFIT)
def test_what_is_unfit_costs_one_line_and_no_run(arguments, tmp_path, extra):
    argv = [*arguments, "--out", tmp_path / "out", *extra.split()]
    assert UNFIT[extra] in printed_error(*argv, command="compare")
    assert not (tmp_path / "out").exists()


def test_source_and_data_are_asked_for(tmp_path):
    line = printed_error("--out", tmp_path / "out", command="compare")
    assert "`--source` should be given, got none. Give --source and --data to compare" in line


def test_too_many_folds_are_refused_before_anything_is_opened(tmp_path):
    argv = ["--source", "none", "--data", "none", "--train-per-class", "2", "--out", tmp_path]
    assert "`--folds` should be at most 2" in printed_error(*argv, command="compare")


# --- finished runs side by side


@pytest.fixture(scope="module")
def runs(arguments, trained, tmp_path_factory):
    """Two runs on the same images, and one with another draw."""
    folders = [trained[0], *(tmp_path_factory.mktemp("runs") / name for name in "bc")]
    run(*arguments, "--method", "finetune", "--steps", "30", out=folders[1])
    run(*arguments, "--seed", "1", out=folders[2])
    return folders


def test_runs_on_the_same_images_are_paired(runs, tmp_path):
    shown = run(*runs, out=tmp_path / "out", command="compare")
    a, b, c = json.loads((tmp_path / "out" / "comparison.json").read_text())["runs"]
    assert (a["difference"], c["difference"]) == (None, None)
    assert shown.count("is tested on other images") == 1
    right = [json.loads((x / "summary.json").read_text())["test_accuracy"] for x in runs[:2]]
    np.testing.assert_allclose(b["difference"]["mean"], right[1] - right[0], atol=1e-9)
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    run(*runs, out=tmp_path / "out", command="compare")  # again, into the same folder


def test_runs_that_are_unfit_cost_one_line(runs, digits, tmp_path):
    out = ["--out", tmp_path / "out"]
    for argv, expected in (
        (runs[:1], "`RUN` should be two or more folders of runs"),
        ([runs[0], runs[0]], "`RUN` should be two or more folders of runs"),
        ([*runs, "--steps", "3"], "`--steps` should come without folders of finished runs"),
        ([*runs, "--source", "x"], "`--source` should come without folders of finished runs"),
        ([runs[0], tmp_path], "`RUN` should be the folder of a finished run"),
    ):
        assert expected in printed_error(*argv, *out, command="compare")
    line = printed_error(*runs, "--out", digits / "out", command="compare")
    assert "`--out` should be a folder outside of the data" in line
    summary = shutil.copytree(runs[0], tmp_path / "old") / "summary.json"
    (summary.parent / "log.jsonl").write_text("[]\n")
    line = printed_error(runs[0], summary.parent, *out, command="compare")
    assert "`RUN` should hold the log.jsonl" in line
    found = json.loads(summary.read_text())
    found["found"]["data_sha256"] = "that of other data"
    summary.write_text(json.dumps(found))
    line = printed_error(runs[0], summary.parent, *out, command="compare")
    assert "`RUN` should be a run whose data are as they were" in line
    (tmp_path / "thesis.txt").touch()
    assert "which holds old, thesis.txt" in printed_error(
        *runs, "--out", tmp_path, command="compare"
    )
