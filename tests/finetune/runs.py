"""Digits as files, a small source network, and runs of the fine-tuning command on them."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

from optax_dtnh.finetune import __main__ as finetune
from optax_dtnh.finetune.arguments import resolved, settings_of
from optax_dtnh.models import Basic, ResNet, save_pretrained

ROOT = Path(__file__).resolve().parents[2]
PER_CLASS = 20
SMALL = (
    *("--train-per-class", "4", "--image-size", "32", "--resize", "36", "--batch-size", "8"),
    *("--steps", "5", "--log-every", "2", "--save-every", "2", "--devices", "1"),
)


def write_digits(folder, classes=10):
    """Write 20 digits of each class as PNG files, one folder for each class."""
    images, labels = load_digits(return_X_y=True)
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for i in np.flatnonzero(labels == label)[:PER_CLASS]:
            pixels = (images[i].reshape(8, 8) * 15.9).astype(np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(folder / str(label) / f"{i}.png")
    return folder


def write_source(path):
    """Write a residual network of one block, which compiles fast."""
    model = ResNet((1, 0, 0, 0), Basic, width=8, classes=3, rngs=nnx.Rngs(0))
    save_pretrained(model, path)
    return path


def run(*argv, out, command="train"):
    """Run a command in this process and return what it prints."""
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        finetune.main([command, "--out", str(out), *map(str, argv)])
    return stdout.getvalue()


def printed_error(*argv, command="train"):
    """Return the one line on stderr of a command that exits with code 2."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as exit_info:
        finetune.main([command, *map(str, argv)])
    assert exit_info.value.code == 2
    (line,) = stderr.getvalue().splitlines()
    assert line.startswith("error: ")
    return line


def settings(*argv, images=100_000):
    """Return the settings of a training with these arguments."""
    given = ["--source", "s", "--data", "d", "--out", "o", *argv]
    return resolved(settings_of(finetune.parser().parse_args(["train", *given])), images)


def summary_of(out):
    return json.loads((out / "summary.json").read_text())


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def assert_same_log(out, other):
    """All that is logged but the time that it took."""
    logs = [log_of(folder) for folder in (out, other)]
    for entry in (*logs[0], *logs[1]):
        entry.pop("images_per_second")
    assert logs[0] == logs[1]


def started(argv, out, command="train", **options):
    """Start a command in a process of its own."""
    command = [sys.executable, "-m", "optax_dtnh.finetune", command, *map(str, argv)]
    # Else XLA fills the pipe with warnings about the cache of compiled programs.
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | options.pop("env", {})
    return subprocess.Popen([*command, "--out", str(out)], cwd=ROOT, env=env, **options)


def wait_until(condition, *processes, seconds=300):
    """Wait for a condition that comes while all these processes run."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert all(process.poll() is None for process in processes), "a process has ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_same_model(out, other):
    files = [folder / "model.safetensors" for folder in (out, other)]
    assert files[0].read_bytes() == files[1].read_bytes()


def weights(out):
    return load_file(out / "model.safetensors")


def accuracy_in(text):
    """The accuracy and the number of images that the command prints."""
    return re.search(r"Test accuracy (.*%) of (\d+) images\.", text).groups()
