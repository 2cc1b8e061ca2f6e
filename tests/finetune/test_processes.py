"""Several processes: the watch that says which one is missing, and the benchmark's claims."""

import copy
import json
import os
import re
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks import multi_process
from benchmarks.processes_check import claims, curves, deaths, groups
from optax_dtnh.finetune import options, processes, watch
from optax_dtnh.finetune.watch import FOUND, MISSING, PATIENCE_S, Watch, message
from tests.finetune.runs import ROOT, SMALL, write_digits, write_source
from tests.pages.pages import blocks, execute

PAGE = "docs/scaling.md"


class Left(Exception):
    """Instead of the end of this process."""


class Service:
    """As much of jax's coordination service as the watch uses."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.values
        self.values[key] = value

    def key_value_dir_get(self, key):
        return [(k, v) for k, v in self.values.items() if k.startswith(key)]


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(watch.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(Watch, "leave", lambda self, missing: (_ for _ in ()).throw(Left(missing)))
    return Clock


def watches(count, coordinator="127.0.0.1:1"):
    service = Service()
    return service, [Watch(service, coordinator, index, count) for index in range(count)]


def test_processes_that_report_are_not_missing(clock):
    _, (first, *others) = watches(3)
    for _ in range(100):
        clock.now += PATIENCE_S / 2
        for one in others:
            one.report()
        first.look_around()


def test_the_first_process_finds_the_silent_one_and_tells_the_others(clock):
    service, (first, second, third, fourth) = watches(4)
    second.report()
    first.look_around()
    for _ in range(3):
        clock.now += PATIENCE_S / 2
        third.report()
    with pytest.raises(Left, match=r"\[1, 3\]"):
        first.look_around()
    assert service.values[FOUND + "silent"] == "1 3"
    for one in (second, third, fourth):
        with pytest.raises(Left, match=r"\[1, 3\]"):
            one.report()


def test_a_process_that_never_reported_is_missed_only_after_a_while(clock):
    _, (first, _) = watches(2)
    clock.now += PATIENCE_S
    first.look_around()
    clock.now += 1
    with pytest.raises(Left, match=r"\[1\]"):
        first.look_around()


def test_a_first_process_that_does_not_answer_is_missed(clock):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _, (_, second) = watches(2, f"127.0.0.1:{listening.getsockname()[1]}")
        clock.now += PATIENCE_S
        second.look_at_coordinator()  # somebody listens
        clock.now += 1
        with pytest.raises(Left, match=r"\[0\]"):
            second.look_at_coordinator()


def test_a_first_process_whose_port_is_closed_is_missed_soon(clock):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    _, (_, second) = watches(2, address)
    second.look_at_coordinator()
    clock.now += watch.LATE_S + 1
    with pytest.raises(Left, match=r"\[0\]"):
        second.look_at_coordinator()


def test_an_address_without_an_answer_is_not_a_refusal(monkeypatch):
    def slow(*args, **kwargs):
        raise TimeoutError

    monkeypatch.setattr(watch.socket, "create_connection", slow)
    assert not watch._is_refused("[::1]:5")


def test_the_message_says_who_is_missing_and_what_to_do():
    assert message([2], 0, 4).startswith("Process 2 of the 4 of this run (0 to 3) ended or no")
    assert message([1, 2, 5], 0, 9).startswith("Processes 1, 2 and 5 of the 9")
    assert message([1, 2], 3, 9).startswith("Processes 1 and 2 of the 9")
    assert "so process 3 stops" in message([1, 2], 3, 9)
    assert "the same command, in all 9 processes, goes on from the last" in message([1, 2], 3, 9)


def test_a_failed_answer_does_not_end_the_watch():
    one, calls = watches(2)[1][1], []

    def act():
        calls.append(None)
        raise RuntimeError("UNAVAILABLE")

    one._repeat(act, 0.001)
    deadline = time.monotonic() + 10
    while len(calls) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    one.end()


def python(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


LEAVING = """
from optax_dtnh.finetune.watch import Watch
watch = Watch(None, "127.0.0.1:1", {index}, 3)
{before}
watch.leave([2])
"""


def test_leaving_ends_the_process_with_its_line():
    done = python(LEAVING.format(index=1, before=""))
    assert done.returncode == MISSING
    assert done.stderr.splitlines()[-1] == f"error: {message([2], 1, 3)}"


def test_a_process_that_is_ending_by_itself_keeps_its_own_words():
    done = python(LEAVING.format(index=1, before="watch.end()"))
    assert (done.returncode, done.stderr) == (0, "")


ABORTING = """
import ctypes, os, threading, time
from optax_dtnh.finetune import watch
{before}
threading.Thread(target=ctypes.CDLL(None).abort).start()  # as C++ does, without Python's lock
time.sleep(0.5)
os._exit(7)
"""


def test_an_abort_leaves_the_watch_its_time():
    assert python(ABORTING.format(before="watch._delay_aborts()")).returncode == 7
    assert python(ABORTING.format(before="")).returncode == -6  # negative control


TOGETHER = """
import sys
from jax._src import distributed
from optax_dtnh.finetune import processes
class Client:
    def key_value_set(self, *args, **kwargs): pass
    def key_value_dir_get(self, key): return []
    def wait_at_barrier(self, name, milliseconds): print("waited")
    def shutdown(self): print("shut down")
state = distributed.global_state
state.client, state.process_id, state.num_processes = Client(), 1, 2
state.coordinator_address = "127.0.0.1:1"
processes.PATIENCE_S = processes.BEAT_S = processes.LINGER_S = 0
with processes.together():
    print("inside")
    {inside}
"""


@pytest.mark.parametrize(
    ("inside", "status", "printed"),
    [
        ("pass", 0, ["inside", "waited", "shut down"]),
        ("raise ValueError('no')", 2, ["inside"]),
        ("raise RuntimeError('no')", 1, ["inside"]),
        ("raise KeyboardInterrupt", 130, ["inside"]),
    ],
)
def test_the_processes_end_together_and_a_failed_one_alone(inside, status, printed):
    done = python(TOGETHER.format(inside=inside))
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines() == printed


def test_a_lost_connection_is_told_from_what_is_wrong_here():
    with pytest.raises(ValueError, match="--distributed") as own:
        options._address(["x"])
    assert processes._is_own(own.value)
    assert processes._is_own(FileNotFoundError("data"))
    assert processes._is_own(KeyboardInterrupt())
    assert processes._is_own(KeyError("features"))
    assert processes._is_own(ModuleNotFoundError("torch"))
    with pytest.raises(ValueError, match=".") as foreign:  # as jax does with Gloo's errors
        np.random.default_rng(0).permuted(np.ones(3), out=np.ones(2))
    assert not processes._is_own(foreign.value)
    assert not processes._is_own(RuntimeError("UNKNOWN: Gloo all-reduce failed"))


JOIN = """
from optax_dtnh.finetune import processes
processes.JOIN_S = {seconds}
processes.join({address})
import jax
print(jax.process_index(), jax.process_count())
"""


def test_processes_that_do_not_come_are_not_waited_for_for_ever():
    address = {"coordinator_address": "127.0.0.1:1", "num_processes": 2, "process_id": 1}
    done = python(JOIN.format(seconds=3, address=address))
    assert done.returncode == MISSING
    assert "should be of processes that are all started within 3 s, got some" in done.stderr
    assert "to process 0 at 127.0.0.1:1. Start" in done.stderr


def test_what_jax_cannot_join_by_is_refused(monkeypatch):
    def initialize(**arguments):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes.jax.distributed, "initialize", initialize)
    with pytest.raises(
        ValueError, match=r"`--distributed` should .*got nothing \(coordinator_addr"
    ):
        processes.join({})
    with pytest.raises(ValueError, match=r"got host:1 2 2 \(coordinator_address"):
        processes.join({"coordinator_address": "host:1", "num_processes": 2, "process_id": 2})


def test_two_tasks_of_slurm_find_each_other():
    """In the environment that the documentation names; there is no SLURM here."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost,other"}
    job |= {"SLURM_NTASKS": "2", "JAX_COORDINATOR_PORT": str(groups.free_port())}
    pair = []
    for index in ("0", "1"):
        environment = os.environ | job | {"SLURM_PROCID": index, "SLURM_LOCALID": index}
        command = [sys.executable, "-c", JOIN.format(seconds=60, address={})]
        pipes = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True, "env": environment}
        pair.append(subprocess.Popen(command, **pipes))
    printed = [process.communicate(timeout=90)[0].splitlines()[-1] for process in pair]
    assert printed == ["0 2", "1 2"]


def test_a_single_process_waits_for_nobody():
    with processes.together():
        pass
    with pytest.raises(ValueError, match="^mine$"), processes.together():
        raise ValueError("mine")


# --- the page


def test_the_loop_of_the_page_does_on_all_devices_what_it_does_on_one():
    program, _ = blocks(PAGE, "python")
    found = execute(program, PAGE)
    assert found["mesh"].size == jax.device_count() > 1
    assert len(found["x"].sharding.device_set) == jax.device_count()
    x = jnp.ones((4 * jax.device_count(), 4))
    params = {"w": jnp.arange(4.0)}
    expected, _, (loss, reg) = found["step"](params, found["tx"].init(params), x)
    np.testing.assert_allclose(found["params"]["w"], expected["w"], rtol=1e-6)
    np.testing.assert_allclose([found["loss"], found["reg"]], [loss, reg], rtol=1e-6)
    assert np.abs(expected["w"] - params["w"]).max() > 0.01


def test_the_page_shows_the_message_and_the_times_of_the_command():
    text = (ROOT / PAGE).read_text()
    (shown,) = blocks(PAGE, "text")
    assert " ".join(shown.split()) == f"error: {message([1], 0, 2)}"
    assert f"nothing has been heard from it for {PATIENCE_S:.0f} seconds" in text
    assert f"the others stop within {claims.MOST_SECONDS:.0f} seconds" in text
    assert f"started within {processes.JOIN_S / 60:.0f} minutes" in text


# --- the benchmark


RESULTS = {
    "curves": [
        {"method": "m", "run": "1 process", "losses": [1.0, 0.9, 0.7]},
        {"method": "m", "run": "1 process, source moved", "differences": [0.0], "largest": 0.1},
        {"method": "m", "run": "2 processes, FSDP", "differences": [9e-7], "largest": 1e-3},
    ],
    "deaths": [
        {
            **{"method": "m", "run": "2 processes, FSDP", "killed": "a worker", "process": 1},
            **{"seconds": 60.0, "statuses": [3], "lines": ["error: Process 1 of the 2 ..."]},
            **{"at_step": 10},
        },
        {
            **{"method": "m", "run": "2 processes, FSDP", "killed": "", "same_bits": True},
            **{"largest": 0.0, "largest_of_weights": 1e-6, "accuracy": 0.9},
        },
    ],
}


def changed(part, index, **values):
    results = copy.deepcopy(RESULTS)
    results[part][index] |= values
    return results


def test_what_is_claimed_is_checked():
    assert claims.failures(RESULTS) == []


@pytest.mark.parametrize(
    ("results", "failure"),
    [
        (changed("curves", 2, differences=[1e-6]), "the first loss differs by 1e-06, at most 9.5e"),
        (changed("curves", 2, differences=[float("nan")]), "the first loss differs by nan"),
        (changed("curves", 2, largest=1.1e-3), "losses differ by 0.0011, at most 0.001"),
        (changed("curves", 2, largest=float("nan")), "losses differ by nan"),
        (changed("curves", 0, losses=[1.0, 1.000001, 0.9]), "a step late, losses would differ"),
        (changed("deaths", 0, seconds=61.0), "61.0 s, at most 60"),
        (changed("deaths", 0, statuses=[-6]), "exit statuses [-6], expected 3"),
        (changed("deaths", 0, lines=["E1124 ..."]), "the last line is 'E1124 ...'"),
        (changed("deaths", 0, process=0), "the last line is 'error: Process 1"),
        (changed("deaths", 1, largest=2e-3), "losses differ by 0.002"),
        (changed("deaths", 1, largest_of_weights=2e-3), "weights differ by 0.002"),
    ],
)
def test_every_claim_can_fail(results, failure):
    (found, *_) = claims.failures(results)
    assert failure in found


def test_the_committed_results_hold_and_are_the_table():
    folder = ROOT / "benchmarks/results"
    results = json.loads((folder / "multi_process.json").read_text())
    assert claims.failures(results) == []
    assert (folder / "multi_process.md").read_text() == f"{claims.markdown(results)}\n"
    runs = {(row["method"], row["run"]) for row in results["curves"]}
    names = {curves.named(count, form) for count in (2, 4) for form in multi_process.FORMS}
    assert {(m, n) for m in multi_process.METHODS for n in names} <= runs
    assert len([row for row in results["deaths"] if row["killed"]]) == 4


def test_a_moved_network_differs_by_one_rounding_everywhere(tmp_path):
    weights = {"a": np.float32([0, 1, -3]), "n": np.int64([4])}
    save_file(weights, tmp_path / "a.safetensors", metadata={"k": "v"})
    found = load_file(curves.moved(tmp_path / "a.safetensors", tmp_path / "b.safetensors"))
    assert (
        np.abs(found["a"][1:]) - np.abs(weights["a"][1:]) == np.spacing(np.abs(weights["a"]))[1:]
    ).all()
    assert (np.abs(found["a"]) > np.abs(weights["a"])).all()
    assert found["n"] == 4


def test_a_run_that_fails_is_told_with_what_it_printed(tmp_path):
    group = groups.start(["--source", "nowhere", "--data", "nowhere"], tmp_path / "out", 1)
    with pytest.raises(RuntimeError, match=r"`argv` should be .*error: `--source` should be an"):
        finish(group)


def finish(group):
    try:
        groups.finish(group)
    except RuntimeError as error:
        raise RuntimeError(str(error).replace("\n", " ")) from error


def test_a_run_that_ends_before_it_is_killed_is_told(tmp_path):
    group = groups.start(["--help"], tmp_path / "out", 1)
    with pytest.raises(RuntimeError, match="`when` should come true while the run is going on"):
        groups.kill(group, 0, lambda: False)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    source, data = write_source(folder / "resnet.safetensors"), write_digits(folder / "digits")
    argv = [*SMALL[: SMALL.index("--steps")], "--steps", "60", "--log-every", "1"]
    argv += ["--save-every", "5", "--data", str(data), "--method", "l2_sp+dtnh"]
    return curves.Case(folder, "m", argv, source, source)


@pytest.mark.long
def test_a_killed_process_stops_the_others_and_the_run_goes_on_to_the_same_weights(case):
    name = curves.named(2, "FSDP")
    fsdp = case._replace(argv=[*case.argv, "--fsdp"])
    curves.run(fsdp, name, 2, fsdp.full())
    *died, end = deaths.survived(fsdp, 2, "FSDP")
    assert [row["process"] for row in died] == [1, 0]
    for row in died:
        assert claims._of_death(row) == []
        assert 0 < row["at_step"] < 60
    assert claims._of_end({**end, "run": name}) == []


@pytest.mark.long
def test_a_process_that_fails_by_itself_stops_the_others_with_its_name(case, tmp_path):
    port, pair = groups.free_port(), []
    for index, batch in enumerate(("8", "9")):  # 9 images cannot be shared by two devices
        where = ["--distributed", f"127.0.0.1:{port}", "2", str(index), "--batch-size", batch]
        command = [sys.executable, "-m", "optax_dtnh.finetune", *case.full(*where)]
        command += ["--out", str(tmp_path / "out")]
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
        pipes = {"cwd": ROOT, "stderr": subprocess.PIPE, "text": True, "env": environment}
        pair.append(subprocess.Popen(command, **pipes))
    errors = [process.communicate(timeout=120)[1] for process in reversed(pair)][::-1]
    assert [process.returncode for process in pair] == [MISSING, 2]
    assert re.match("error: `--batch-size` should be a multiple .*, 2, got 9", own_lines(errors[1]))
    assert errors[0].splitlines()[-1] == f"error: {message([1], 0, 2)}"


def own_lines(errors):
    return "\n".join(line for line in errors.splitlines() if not line.startswith("[Gloo]"))
