"""Runs of the fine-tuning command in processes of their own, killed and shared: minutes."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from optax_dtnh.finetune import report
from tests.finetune.runs import ROOT, SMALL, run, weights, write_digits, write_source

pytestmark = pytest.mark.long

MOMENTS = 10


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    source, data = write_source(folder / "resnet.safetensors"), write_digits(folder / "digits")
    return ["--source", source, "--data", data, *SMALL]


def started(argv, out, **options):
    command = [sys.executable, "-m", "optax_dtnh.finetune", *map(str, argv), "--out", str(out)]
    return subprocess.Popen(command, cwd=ROOT, **options)


def finish(process):
    assert process.wait(timeout=300) == 0


def wait_for_a_save(process, folder):
    """Wait until the process has begun to write checkpoints."""
    before = sorted(folder.glob("*"))
    deadline = time.monotonic() + 300
    while sorted(folder.glob("*")) == before:
        assert process.poll() is None, "the process ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def unfinished_saves(folder):
    return [path for path in folder.iterdir() if not list(path.glob("manifest-*.json"))]


def test_a_run_killed_at_any_moment_ends_in_the_same_bits(arguments, tmp_path):
    argv = [*arguments, "--method", "feature_distance+dtnh", "--reference-decay", "0.9"]
    argv += ["--steps", "400", "--save-every", "2", "--log-every", "3"]
    finish(started(argv, tmp_path / "whole"))
    moments = random.Random(0)
    out, inside_a_save, steps = tmp_path / "killed", 0, []
    for _ in range(MOMENTS):
        process = started(argv, out)
        wait_for_a_save(process, out / "checkpoints")
        time.sleep(moments.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the process ended before it was killed"
        inside_a_save += bool(unfinished_saves(out / "checkpoints"))
        steps.append(max((x["step"] for x in report.entries(out / "log.jsonl")), default=0))
    finish(started(argv, out))
    assert inside_a_save > 0
    assert steps[-1] > steps[0]  # it does get on
    whole, killed = (tmp_path / name / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()
    logs = [report.entries(path.with_name("log.jsonl")) for path in (whole, killed)]
    assert [x["loss"] for x in logs[0]] == [x["loss"] for x in logs[1]]


WITH_A_LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from benchmarks import finetune
finetune.main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("limit", "missing"),
    [(100, "settings.json"), (9000, "model.safetensors"), (16000, "figure.png")],
)
def test_a_full_disk_costs_one_line_and_no_result(arguments, tmp_path, limit, missing):
    run(*arguments, out=tmp_path / "whole")
    out = tmp_path / "full"
    if limit > 100:  # where a checkpoint no longer fits: the last step is there
        shutil.copytree(tmp_path / "whole", out)
        for name in ("model.safetensors", "figure.png", "summary.json"):
            (out / name).unlink()
    command = [sys.executable, "-c", WITH_A_LIMIT, str(limit), *map(str, arguments), "--out", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.match(f"error: `--out` should be .* does not take {missing}", line)
    assert not list(out.glob(".*"))
    run(*arguments, out=out)
    assert (out / "model.safetensors").read_bytes() == (
        tmp_path / "whole/model.safetensors"
    ).read_bytes()


def free_port():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


@pytest.mark.parametrize("fsdp", [[], ["--fsdp"]], ids=["replicated", "fsdp"])
@pytest.mark.parametrize("method", ["l2_sp+dtnh", "delta"])
def test_two_processes_give_what_one_gives(arguments, tmp_path, method, fsdp):
    argv = [*arguments, "--method", method]
    shared = argv[: argv.index("--devices")] + argv[argv.index("--devices") + 2 :] + fsdp
    where, environment = f"localhost:{free_port()}", os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    pair = [
        started([*shared, "--distributed", where, 2, i], tmp_path / "two", env=environment)
        for i in range(2)
    ]
    for process in pair:
        finish(process)
    run(*argv, out=tmp_path / "one")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)
    logs = [report.entries(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    assert [x["step"] for x in logs[0]] == [x["step"] for x in logs[1]]
