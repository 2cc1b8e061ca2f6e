"""One network from one of its parts on, as a question of a benchmark."""

import argparse
import math
import os
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from benchmarks.harness.command import Question
from benchmarks.harness.record import Results
from benchmarks.real import figure, material, report, runs
from benchmarks.real.material import Scale

TITLE = "What does DTNH change on a pretrained network?"
SMALL = Scale(2, shots=2, test=20, seeds=1, few=1, tuning=1, lanes=2, spoiling=1e-3, shrink=8)
# Of a search over kernels for every product, which takes longer than all runs.
XLA_FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"


def question(name: str, doc: str | None, first: str, scale: Scale) -> Question:
    """Return the question that trains the parts of the network from `first` on."""
    measured = partial(measure, name=name, first=first, scale=scale)
    return Question(name, doc, measured, report.text, draw=figure.draw, options=add_options)


def measure(options: Namespace, name: str, first: str, scale: Scale) -> Results:
    """Run what is left, and return the cells so far."""
    os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
    jax.config.update("jax_default_matmul_precision", "highest")
    name, scale = (f"{name}.smoke", SMALL) if options.smoke else (name, scale)
    given, file = partial(material.real, first), options.out / f"{name}.jsonl"
    lines = runs.experiment(given, scale, file, options.budget, smoke=options.smoke)
    where = [line["environment"] for line in lines if "environment" in line][-1:]
    if where and options.commit:
        where[0] |= {"commit": options.commit, "dirty": False}
    found = report.grouped(line for line in lines if "cell" in line)
    results = {"question": TITLE, "first": first, "settings": scale._asdict(), "runs": found}
    return {"environment": where[0], **results} if where else results


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add how much is run, and of which commit a copy without .git is."""
    add: Callable[..., Any] = parser.add_argument
    add("--smoke", action="store_true", help="Run a few steps of a few cells.")
    budget = "Start no run that would end later; 0 writes what was run (default: no limit)."
    add("--budget", type=float, default=math.inf, metavar="MINUTES", help=budget)
    commit = "Commit of the runs, where they were made from a copy without .git."
    add("--commit", metavar="HASH", help=commit)
