"""Runs of the command in processes of their own: killed at random, and short of disk."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.finetune.runs import ROOT, assert_same_log, assert_same_model, run, started, wait_until

pytestmark = pytest.mark.slow

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


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


WITH_A_LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from optax_dtnh.finetune.__main__ import main
main(["train", *sys.argv[2:]])
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
    # A compiled program no longer fits into the cache, either.
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert re.match(f"error: `--out` should be .* does not take {missing}", line)
    assert not list(out.glob(".*"))
    run(*arguments, out=out)
    assert_same_model(out, tmp_path / "whole")
