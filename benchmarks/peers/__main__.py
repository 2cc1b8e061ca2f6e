"""What does the same step cost elsewhere? In torch, by hand and with TorchJD.

    make peers

or, in an environment with the extra `peers`, `python -m benchmarks.peers`. Claims:

- The same numbers give the same updates as two `autograd.grad` and the rule by hand in torch:
  within 1e-5 of a combination in float32 (ours within 1e-6 of the formula in float64), within 1e-9
  of the parameters after a step in float64, of a ResNet-18 with L2-SP and with KnowDist, batch
  normalization in training mode, weights shared through a checkpoint. The gradients conflict in all
  of them.
- TorchJD's PCD with the regularizer as its primary row and `tau=0` gives the same combination, once
  its direction has the length of `r'`: within 1e-5 of the formula in float32.

Measured, and not asserted, next to torch by hand and TorchJD's PCGrad, UPGrad and MGDA: the time of
the combination alone on trees of 26 and 87 million parameters, with optax by hand as well; images
per second and peak memory of a fine-tuning step, and its time relative to the same framework's own
step with one gradient. TorchJD's directions are others: see the note under the tables.

It takes some minutes on two cores. Threads of OpenMP wait passively, or it refuses to start: busy
waiting once reversed a comparison. On a CPU, XLA of jax 0.10 stores the products of an inner
product and 0.12 does not: record with Python 3.12 or newer.
"""

import importlib.util
import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import jax

from benchmarks.harness.command import Question, command
from benchmarks.peers import measure, report
from benchmarks.peers.waiting import cores, passive
from benchmarks.peers.work import BARS, missed
from optax_dtnh.finetune.errors import usage_errors

PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "torch", "torchjd")
NEEDED = ("torch", "torchjd", "qpsolvers", "quadprog", "safetensors")
TABLES = {"combination": measure.combinations, "finetuning": measure.finetuning}


def check_packages() -> None:
    """Refuse to start without what is compared."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"`{missing[0]}`, which is compared with, is not installed. Run `make peers`, which "
            "sets up .venv-peers, or use the Python in there."
        )


def measured(options: Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Return the rows of every table, and how they were measured."""
    jax.config.update("jax_platforms", "cpu")
    with usage_errors(ValueError, OSError):
        passive(os.environ)
        cores(measure.THREADS)
    check_packages()
    results = {"threads": measure.THREADS, "rounds": measure.ROUNDS, "bars": BARS}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in TABLES.items():
            print(f"Measuring: {report.TABLES[name].title}.", flush=True)
            results[name] = list(rows(Path(folder)))
    return results


def failures(results: dict[str, Any]) -> list[str]:
    """Return a message for every claim that does not hold."""
    dtypes = {"combination": "float32", "finetuning": "float64"}
    return [m for name in TABLES for row in results[name] for m in missed(row, dtypes[name])]


QUESTION = Question("peers", __doc__, measured, report.text, failures, packages=PACKAGES)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
