"""What stops a run: a signal or a kill. The same command resumes it to the same bits."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from optax_dtnh.finetune import checkpoints, interrupts, step
from tests.finetune.runs import ROOT, assert_same_log, assert_same_model, run, started, wait_until

slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def _default_handler():
    """Let SIGINT raise, also where the tests are started in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(monkeypatch, number, before_step):
    """Send the signal to this process before a step."""
    on_devices, calls = step.on_devices, []

    def sending(*args, **kwargs):
        calls.append(args)
        if len(calls) == before_step:
            signal.raise_signal(number)
        return on_devices(*args, **kwargs)

    monkeypatch.setattr(step, "on_devices", sending)


@pytest.mark.parametrize(
    ("number", "sent", "stopped", "method"),
    [
        (signal.SIGINT, 5, 7, "l2_sp+dtnh"),
        (signal.SIGINT, 9, 9, "l2_sp+dtnh"),
        pytest.param(signal.SIGTERM, 5, 7, "delta+dtnh", marks=slow),
    ],
)
def test_no_step_is_lost_and_the_run_ends_in_the_same_bits(
    arguments, tmp_path, monkeypatch, capsys, number, sent, stopped, method
):
    argv = [*arguments, "--steps", "9", "--save-every", "4", "--log-every", "3", "--method", method]
    run(*argv, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        send(patch, number, before_step=sent)
        with pytest.raises(SystemExit) as stop:
            run(*argv, out=tmp_path / "stopped")
    assert stop.value.code == interrupts.STATUS
    message = f"Stopped after step {stopped}, which is saved. Run the same command again to resume."
    printed = capsys.readouterr().err.splitlines()
    assert printed[-1] == message
    assert (tmp_path / f"stopped/checkpoints/step_{stopped}/checksums.json").is_file()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert f"Resuming from step {stopped}." in run(*argv, out=tmp_path / "stopped")
    assert_same_model(tmp_path / "whole", tmp_path / "stopped")
    assert_same_log(tmp_path / "whole", tmp_path / "stopped")


def test_a_checkpoint_is_saved_by_time_and_changes_nothing(arguments, tmp_path, monkeypatch):
    argv, steps = [*arguments, "--steps", "9", "--save-every", "9"], []
    run(*argv, out=tmp_path / "whole")
    monkeypatch.setattr(checkpoints, "SAVE_S", 0.0)
    monkeypatch.setattr(checkpoints, "SAVE_SHARE", float("inf"))
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *x: steps.append(x[1]) or save(*x))
    run(*argv, out=tmp_path / "often")
    assert steps == [2, 4, 6, 8, 9]  # the step after the one that asks for it
    assert_same_model(tmp_path / "whole", tmp_path / "often")


def test_a_signal_is_noticed_and_the_handlers_come_back(capfd):
    with interrupts.noticed() as noticed:
        assert not noticed()
        signal.raise_signal(signal.SIGTERM)
        assert noticed()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert capfd.readouterr().err == f"\n{interrupts.STOPPING}\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.fatal()
    with interrupts.noticed() as noticed:
        signal.raise_signal(signal.SIGINT)
        assert not noticed()


TWICE = """
import signal
from optax_dtnh.finetune import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.fatal()
assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
with interrupts.noticed():
    signal.raise_signal(signal.SIGINT)
    print("goes on", flush=True)
    signal.raise_signal(signal.{second})
    print("too far")
"""


@pytest.mark.parametrize("second", ["SIGINT", pytest.param("SIGTERM", marks=slow)])
def test_a_second_signal_ends_the_process_at_once(second):
    command = [sys.executable, "-c", TWICE.format(second=second)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-getattr(signal, second), "goes on\n")


@slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_decoding_processes_leave_a_signal_of_the_terminal_to_the_run_and_end_with_it(
    arguments, tmp_path, number
):
    argv = [*arguments, "--steps", "100000", "--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with started(argv, tmp_path / "run", start_new_session=True, **pipes) as process:
        assert any("step 6/" in line for line in iter(process.stdout.readline, ""))
        if number == signal.SIGINT:  # a terminal sends it to all processes
            os.killpg(process.pid, number)
            printed = process.communicate(timeout=60)[1]
            assert process.returncode == interrupts.STATUS, printed
            assert re.search(r"\nStopped after step \d+, which is saved. Run the sam", printed)
            assert "Traceback" not in printed
        process.kill()
        process.communicate(timeout=60)
        wait_until(lambda: gone(process.pid), seconds=10)


def gone(group):
    """Whether no process of the group is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return False
    return True


QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@slow
@pytest.mark.parametrize(
    ("moments", "steps"), [(3, 100), pytest.param(20, 600, marks=pytest.mark.long)]
)
def test_a_run_killed_at_any_moment_ends_in_the_same_bits(arguments, tmp_path, moments, steps):
    argv = [*arguments, "--method", "feature_distance+dtnh", "--reference-decay", "0.9"]
    argv += ["--steps", steps, "--save-every", "2", "--log-every", "3"]
    whole, killed, rng = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    assert started(argv, whole, **QUIET).wait(timeout=300) == 0
    for _ in range(moments):
        process = started(argv, killed, **QUIET)
        saved = set(killed.glob("checkpoints/*"))
        wait_until(lambda saved=saved: set(killed.glob("checkpoints/*")) != saved, process)
        time.sleep(rng.uniform(0, 1))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the process ended before it was killed"
    assert started(argv, killed, **QUIET).wait(timeout=300) == 0
    assert_same_model(whole, killed)
    assert_same_log(whole, killed)
