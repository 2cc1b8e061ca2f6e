"""Several processes train what one trains, end together, and are resumed by any number of them."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optax_dtnh.finetune import interrupts, processes
from optax_dtnh.finetune.errors import UsageError
from tests.finetune import runs
from tests.finetune.runs import ROOT, log_of, wait_until, weights

slow, long = pytest.mark.slow, pytest.mark.long
FIRST = 8 * float(np.finfo(np.float32).eps)  # sums in another order, 9.5e-7
MOST = 1e-3  # training carries the first difference on, and a gradient may jump
ENDED_S = processes.HEARTBEAT_S + 15  # as docs/scaling.md says


@pytest.fixture(scope="module")
def arguments(arguments):
    all_devices = [x for x in arguments if x not in ("--devices", "1")]
    return [*all_devices, "--steps", "12", "--log-every", "1", "--save-every", "4"]


@pytest.fixture
def start():
    """Start processes of the command with one device each; what still runs in the end is killed."""
    groups = []

    def started(argv, out, count, differing=()):
        port = free_port()
        env = {"JAX_NUM_CPU_DEVICES": "1", "TF_CPP_MIN_LOG_LEVEL": "1"}
        # Process 0 would listen at all addresses of the machine.
        env |= {"JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}"}
        group = []
        for index in range(count):
            where = ["--distributed", f"127.0.0.1:{port}", str(count), str(index)]
            given = [*argv, *(where if count > 1 else ()), *(differing if index else ())]
            with Path(f"{out}-{index}.txt").open("w") as file:
                pipes = {"stdout": file, "stderr": subprocess.STDOUT}
                group.append(runs.started(given, out, env=env, **pipes))
        groups.append(group)
        return group

    yield started
    for process in sum(groups, []):
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def finish(group, out):
    statuses = [process.wait(timeout=240) for process in group]
    assert not any(statuses), [printed(out, index) for index in range(len(group))]


def printed(out, index):
    return Path(f"{out}-{index}.txt").read_text()


def until_a_checkpoint(group, out):
    saved = set(out.glob("checkpoints/step_*/checksums.json"))
    wait_until(lambda: set(out.glob("checkpoints/step_*/checksums.json")) - saved, *group)


def losses(out):
    return np.array([entry["loss"] for entry in log_of(out)])


def assert_close(out, one):
    """The curve of `one`: the first loss by rounding, and all nearer than a step would be."""
    differences = np.abs(losses(out) / losses(one) - 1)
    assert differences[0] <= FIRST
    assert differences.max() <= MOST
    assert differences.max() < np.abs(losses(one)[1:] / losses(one)[:-1] - 1).min()
    for name, expected in weights(one).items():
        scale = np.abs(expected).max(initial=0) or 1
        np.testing.assert_allclose(weights(out)[name], expected, rtol=0, atol=MOST * scale)


KNOWDIST = ["--method", "feature_distance+dtnh", "--weight", "0.1"]


@slow
@pytest.mark.parametrize("method", [["--fsdp", "--val-per-class=2", "--val-every=5"], KNOWDIST])
def test_two_processes_train_what_one_trains(arguments, tmp_path, start, method):
    argv = [*arguments, *method]
    for count in (1, 2):
        out = tmp_path / str(count)
        finish(start(argv, out, count), out)
    assert_close(tmp_path / "2", tmp_path / "1")
    two, one = ([x.get("val_loss", 0) for x in log_of(tmp_path / n)] for n in "21")
    np.testing.assert_allclose(two, one, rtol=MOST)


@slow
def test_a_signal_to_one_stops_all_and_another_number_resumes_the_run(arguments, tmp_path, start):
    # A save at every step, so that none is over before its signal has come.
    slowly = ["--steps", "60", "--save-every", "1", "--learning-rate", "0.0001"]
    argv, out, one = [*arguments, "--fsdp", *slowly], tmp_path / "run", tmp_path / "one"
    for count, victim, number in ((2, 1, signal.SIGTERM), (1, 0, signal.SIGINT)):
        group = start(argv, out, count)
        until_a_checkpoint(group, out)
        group[victim].send_signal(number)
        assert [process.wait(timeout=60) for process in group] == [interrupts.STATUS] * count
        assert re.search(r"\nStopped after step \d+, which is saved\. Run ", printed(out, 0))
    finish(start(argv, out, 2), out)
    finish(start(argv, one, 1), one)
    assert re.search(r"\nResuming from step \d+\.\n", printed(out, 0))
    np.testing.assert_allclose(losses(out), losses(one), rtol=MOST)
    assert [x["step"] for x in log_of(out)] == [x["step"] for x in log_of(one)]


@slow
@pytest.mark.parametrize("victim", [1, 0])
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=long)])
def test_when_a_process_is_gone_the_other_ends_in_time(arguments, tmp_path, start, victim, number):
    out = tmp_path / "run"
    group = start([*arguments, "--fsdp", "--steps", "100000"], out, 2)
    until_a_checkpoint(group, out)
    group[victim].send_signal(number)
    assert group[1 - victim].wait(timeout=ENDED_S) in (1, -signal.SIGABRT)
    assert re.search("another (process|task)", printed(out, 1 - victim).lower())


DIFFERING = {
    "--batch-size 9": "error: `--batch-size` should be a multiple of the number of",
    "--seed 1": "where --seed was 0 and is 1",
}


@slow
@pytest.mark.parametrize("differing", DIFFERING)
def test_a_process_that_differs_says_why(arguments, tmp_path, start, differing):
    out = tmp_path / "run"
    group = start(arguments, out, 2, differing=differing.split())
    assert group[1].wait(timeout=120) == 2
    assert DIFFERING[differing] in printed(out, 1)
    assert group[0].wait(timeout=ENDED_S) in (1, -signal.SIGABRT)


JOIN = """
from optax_dtnh.finetune import processes
processes.JOIN_S = {seconds}
with processes.joined({address}):
    import jax
    print(jax.process_index(), jax.process_count())
"""


@slow
def test_processes_that_do_not_come_are_not_waited_for_for_ever():
    address = ["127.0.0.1:1", "2", "1"]
    command = [sys.executable, "-c", JOIN.format(seconds=4, address=address)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "reached process 0 at 127.0.0.1:1 in 4 s. Check the address" in done.stderr


@slow
def test_two_tasks_of_slurm_find_each_other():
    """In the environment that the documentation names; there is no SLURM here."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost,other"}
    job |= {"SLURM_NTASKS": "2", "JAX_COORDINATOR_PORT": str(free_port())}
    pair = []
    for index in ("0", "1"):
        env = os.environ | job | {"SLURM_PROCID": index, "SLURM_LOCALID": index}
        command = [sys.executable, "-c", JOIN.format(seconds=60, address=[])]
        pipes = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True, "env": env}
        pair.append(subprocess.Popen(command, **pipes))
    lines = [process.communicate(timeout=90)[0].splitlines()[-1] for process in pair]
    assert lines == ["0 2", "1 2"]


def test_the_address_of_a_process_is_that_of_jax():
    address = {"coordinator_address": "host:1", "num_processes": 4, "process_id": 2}
    assert processes._address(["host:1", "4", "2"]) == address
    assert processes._address([]) == {}


@pytest.mark.parametrize(
    ("where", "got"),
    [
        ("", "nothing (coordinator_addr"),
        ("host:1", "host:1 (not enough values"),
        ("host:1 4 4", "host:1 4 4 (the index is not below the number"),
        ("host:1 4 x", "host:1 4 x (invalid"),
    ],
)
def test_what_jax_cannot_join_by_is_refused(monkeypatch, where, got):
    def initialize(**arguments):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes.jax.distributed, "initialize", initialize)
    message = f"`--distributed` should .*got {re.escape(got)}"
    with pytest.raises(UsageError, match=message), processes.joined(where.split()):
        pass


def test_a_single_process_waits_for_nobody(monkeypatch):
    monkeypatch.setattr(processes.atexit, "register", lambda *_: pytest.fail("it would leave"))
    with pytest.raises(ValueError, match="^mine$") as caught, processes.joined(None):
        raise ValueError("mine")
    assert not getattr(caught.value, "__notes__", [])
    assert processes.anywhere(True)
    assert not processes.anywhere(False)
