"""Ctrl-C and missing packages: how the command ends, and what it says that can be done."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from optax_dtnh.finetune import array_files, checkpoints, interrupts, options, step
from tests.finetune.runs import ROOT, SMALL, run, write_digits, write_source

ANEW = (
    "Stopped before the first checkpoint (every 2 steps, `--save-every`): the same command begins "
    "anew."
)


@pytest.fixture(autouse=True)
def _default_handler():
    """Let SIGINT raise, also where the tests are started in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    source, data = write_source(folder / "resnet.safetensors"), write_digits(folder / "digits")
    return ["--source", str(source), "--data", str(data), *SMALL]


# --- a process that is interrupted while XLA compiles


def interrupted_in_the_first_compilation(arguments, out):
    """Return exit status and stderr, that of jax's log of compilations included."""
    command = [sys.executable, "-m", "optax_dtnh.finetune", *arguments, "--out", str(out)]
    environment = os.environ | {"JAX_LOG_COMPILES": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        lines = iter(process.stderr.readline, "")
        assert any("Compiling jit(step)" in line for line in lines), "it ended before the steps"
        process.send_signal(signal.SIGINT)
        return process.wait(timeout=120), process.stderr.read()


def check_the_end(arguments, out):
    status, printed = interrupted_in_the_first_compilation(arguments, out)
    assert status == interrupts.STATUS, printed
    assert printed.splitlines()[-2:] == ["", ANEW]
    assert "Traceback" not in printed


def test_a_compilation_is_interrupted_without_a_crash(arguments, tmp_path):
    check_the_end(arguments, tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize("time", range(3))
def test_a_compilation_is_interrupted_without_a_crash_again(arguments, tmp_path, time):
    check_the_end(arguments, tmp_path / f"run{time}")


def test_an_interrupt_that_is_lost_in_between_stops_the_run_all_the_same(
    arguments, tmp_path, monkeypatch, capsys
):
    on_devices = step.on_devices

    def losing(*args):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return on_devices(*args)

    monkeypatch.setattr(step, "on_devices", losing)
    monkeypatch.setattr(os, "_exit", sys.exit)  # which would end the tests
    with pytest.raises(SystemExit) as stop:
        run(*arguments, out=tmp_path / "run")
    assert stop.value.code == interrupts.STATUS
    assert capsys.readouterr().err == f"\n{ANEW}\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_was_remembered_is_forgotten_with_the_command():
    with interrupts.remembered():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.raise_again()
    interrupts.raise_again()


# --- what waits for a save


def state():
    return {"w": jnp.arange(4.0)}


def presses(monkeypatch, times):
    """Let Ctrl-C be pressed before the next save has written an array."""
    write = array_files.write

    def pressed(*args):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        write(*args)

    monkeypatch.setattr(array_files, "write", pressed)


def test_an_interrupt_waits_for_the_save_under_way(tmp_path, monkeypatch):
    presses(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, 3, state(), {})
    restored = checkpoints.restore_latest(tmp_path, state())
    assert restored.step == 3
    np.testing.assert_array_equal(restored.state["w"], np.arange(4.0))


def test_a_second_interrupt_waits_for_nothing(tmp_path, monkeypatch):
    presses(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, 3, state(), {})
    assert checkpoints.restore_latest(tmp_path, state()) is None


def test_after_the_block_an_interrupt_waits_no_more():
    with interrupts.held_back():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_no_handler_can_be_set_nothing_waits():
    entered = []

    def enter():
        with interrupts.held_back():
            entered.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    enter()
    assert entered == [signal.default_int_handler, signal.SIG_IGN]


# --- what is said


def test_only_a_whole_checkpoint_is_gone_on_from(tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / "step-00000002" / "state").mkdir(parents=True)  # a save that did not end
    assert interrupts.message(tmp_path, 2) == ANEW
    checkpoints.save(folder, 2, state(), {})
    goes_on = "Stopped. The same command goes on from the last checkpoint."
    assert interrupts.message(tmp_path, 2) == goes_on


def test_the_option_that_is_named_is_one():
    given = "--source s --data d --out o --save-every 7".split()
    _, settings = options.parse(options.parser(None), given)
    assert settings.save_every == 7


def test_one_of_several_processes_is_left_to_their_way_of_ending(capsys):
    with pytest.raises(SystemExit) as stop:
        interrupts.leave("Stopped.", several=True)
    assert stop.value.code == interrupts.STATUS
    assert capsys.readouterr().err == "\nStopped.\n"


def test_nothing_printed_is_lost_and_nothing_is_torn_down():
    code = (
        "import atexit; from optax_dtnh.finetune import interrupts\n"
        "atexit.register(print, 'torn down'); print('step 1')\n"
        "interrupts.leave('Stopped.', several={})"
    )
    left, exited = (
        subprocess.run([sys.executable, "-c", code.format(x)], cwd=ROOT, capture_output=True)
        for x in (False, True)
    )
    assert left.returncode == exited.returncode == interrupts.STATUS
    assert (left.stdout, left.stderr) == (b"step 1\n", b"\nStopped.\n")
    assert b"torn down" in exited.stdout  # negative control


# --- packages that are not installed

WITHOUT = """
import sys
missing, *argv = sys.argv[1:]
class Finder:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == missing:
            return None
        return next(filter(None, (finder.find_spec(name, *rest) for finder in finders)), None)
finders, sys.meta_path = sys.meta_path, [Finder()]
from benchmarks import finetune
finetune.main(argv)
"""


@pytest.mark.parametrize("package", ["PIL", "grain", "tqdm"])
def test_a_missing_package_says_how_to_get_it(arguments, tmp_path, package):
    command = [sys.executable, "-c", WITHOUT, package, *arguments, "--out", tmp_path / "run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    advice = "Install the extras: `pip install '.[benchmarks,data,models]'` in a clone."
    assert done.stderr == f"error: No module named '{package}'. {advice}\n"
    assert not list(tmp_path.iterdir())
