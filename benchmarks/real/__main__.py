"""What decisions of DTNH change on a pretrained network and real photographs.

    python -m benchmarks.real                  # run it again to resume
    python -m benchmarks.real --budget 5       # stop after 5 minutes
    python -m benchmarks.real --smoke          # a small part, to see that it runs

EfficientNet-Lite0 with its ImageNet weights, or these spoiled by shuffled labels, is fine-tuned on
40 images of each of 4 classes of solar cells: 250 steps of SGD with momentum, 15 seeds. L2-SP and
KnowDist act at the weight that is best on ImageNet's weights and at ten times that, at rates that
plain training on other seeds has chosen; DTNH decides about the whole tree or about each element.
Around that, one setting at a time is changed, on 5 seeds: see `cells.chosen`.

Runs are appended to real.jsonl in `--out`. Meant for one GPU; on CPU it takes days.
"""

import argparse
import math
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.harness.command import Question, command
from benchmarks.harness.record import Results
from benchmarks.real import figure, material, report, runs
from benchmarks.real.material import Scale

TITLE = "What does DTNH change on a pretrained network?"
SMALL = Scale(steps=2, passes=1, shots=2, test=20, seeds=1, few=1, tuning=1, lanes=2, shrink=8)
# Of a search over kernels for every product, which takes longer than all runs.
XLA_FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"


def measure(options: Namespace) -> Results:
    """Run what is left, and return the cells so far."""
    os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
    jax.config.update("jax_default_matmul_precision", "highest")
    name, scale = ("real.smoke", SMALL) if options.smoke else ("real", Scale())
    file = options.out / f"{name}.jsonl"
    lines = runs.experiment(material.real, scale, file, options.budget, smoke=options.smoke)
    where = [line["environment"] for line in lines if "environment" in line][-1:]
    if where and options.commit:
        where[0] |= {"commit": options.commit, "dirty": False}
    found = report.grouped(line for line in lines if "cell" in line)
    results = {"question": TITLE, "settings": scale._asdict(), "runs": found}
    return {"environment": where[0], **results} if where else results


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add how much is run, and of which commit a copy without .git is."""
    add: Callable[..., Any] = parser.add_argument
    add("--smoke", action="store_true", help="Run a few steps of a few cells.")
    budget = "Start no run that would end later; 0 writes what was run (default: no limit)."
    add("--budget", type=float, default=math.inf, metavar="MINUTES", help=budget)
    commit = "Commit of the runs, where they were made from a copy without .git."
    add("--commit", metavar="HASH", help=commit)


QUESTION = Question("real", __doc__, measure, report.text, draw=figure.draw, options=add_options)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
