"""The folder of a run: whose it is, and what is written into it."""

import json
import subprocess
import sys

import pytest

from optax_dtnh.finetune import log as logs
from optax_dtnh.finetune import run_folder
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.models._pretrained import PARTIAL
from tests.finetune.runs import ROOT, settings

FACTS = {"classes": 3, "train_images": 100_000, "broken_images": ("a.png",)}
HOLD = """
import pathlib, sys, time
from optax_dtnh.finetune import run_folder
with run_folder.locked(pathlib.Path(sys.argv[1])):
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def out(tmp_path):
    """The folder of a run that has begun."""
    claim(tmp_path / "run", settings(), FACTS)
    return tmp_path / "run"


def claim(*what):
    with run_folder.claimed(*what):
        pass


def test_a_run_finds_its_own_folder_again(out):
    claim(out, settings("--workers", "1"), FACTS)  # which changes no weight
    found = json.loads((out / run_folder.SETTINGS).read_text())["found"]
    assert found == FACTS | {"broken_images": ["a.png"]}
    assert not run_folder.is_finished(out)


def test_other_settings_and_other_data_are_refused(out):
    before = (out / run_folder.SETTINGS).read_text()
    for compare in (run_folder.check, claim):
        with pytest.raises(UsageError, match="source and data, got .* classes was 3 and is"):
            compare(out, settings(), FACTS | {"classes": 4})
        with pytest.raises(
            UsageError, match="data, got .* where --batch-size was 64 and is 1; --s"
        ):
            compare(out, settings("--seed", "1", "--batch-size", "1"), FACTS)
    assert (out / run_folder.SETTINGS).read_text() == before


def test_a_process_that_sees_another_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder.processes, "is_main", lambda: False)
    with pytest.raises(UsageError, match="one folder that all processes see"):
        claim(tmp_path, settings(), FACTS)


def test_what_a_killed_claim_has_left_does_not_count(tmp_path):
    (tmp_path / f"{PARTIAL}settings.json").write_text("{")
    assert run_folder.check(tmp_path, settings()) is None


def test_a_folder_is_of_one_process_until_that_is_gone(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"begun\n"
        message = "`--out` should be a folder that no other process"
        with pytest.raises(UsageError, match=message), run_folder.locked(tmp_path):
            pass
        process.kill()
        process.wait()
    with run_folder.locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    run_folder.write_json(path, 1)

    def fail(partial):
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match=r"does not take a.json \(No space left on device\). Make"):
        run_folder.atomically(path, fail)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("1\n", [path])


def test_the_log_is_cut_to_a_step_and_passes_over_half_a_line(tmp_path):
    log = tmp_path / "log.jsonl"
    assert logs.entries(log) == []
    run_folder.append_lines(log, [entry(step, None, None) for step in (2, 4, 6)])
    before = log.read_text()
    log.write_text(before + '{"step": 8, "lo')
    logs.truncate(log, 4)
    assert [x["step"] for x in logs.entries(log)] == [2, 4]
    assert before.startswith(log.read_text())


def entry(step, conflict, speed):
    return dict(step=step, loss=1.0, accuracy=0.5, conflict=conflict, images_per_second=speed)


def test_a_summary_weighs_conflicts_by_steps_and_takes_the_median_speed():
    log = [entry(2, 1.0, None), entry(4, 0.5, 9.0), entry(10, 0.0, 3.0), entry(11, 0.0, 5.0)]
    found = logs.summed_up(log)
    assert found["conflict"] == pytest.approx(3 / 11)
    assert found["images_per_second"] == 5.0
    assert logs.summed_up([entry(2, None, None)])["conflict"] is None


def test_a_name_that_is_not_unicode_is_written_as_a_terminal_shows_it(tmp_path):
    run_folder.save_text(tmp_path / "report.html", "\udcff é")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == r"\udcff é"
