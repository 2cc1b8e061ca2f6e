"""What DTNH changes about KL to the base in a language model.

    python -m benchmarks.language

A decoder of characters is pretrained on Python's manual, and fine-tuned on 128 pieces of code with
`forward_kl` to the base on the batch, over three decades of the KL's weight.

Expected: DTNH protects the training loss of the new task. It lowers it, and forgets more of the old
task than the plain KL of the same weight. It acts like a smaller weight: at the same training loss,
both forget the same, up to 0.5 of the 55 nats per 100 characters that fine-tuning forgets. Another
version of Python has other texts and gives other numbers. It takes 4 to 6 minutes on two CPU cores.
"""

import sys
from argparse import Namespace

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.harness import record
from benchmarks.harness.command import Question, command, option
from benchmarks.harness.record import Results
from benchmarks.language import report
from benchmarks.language.data import texts
from benchmarks.language.report import BASE, DTNH, LOSSES, PLAIN, TUNED
from benchmarks.language.training import LENGTH, fine_tune, loss_and_logits, pretrain
from optax_dtnh import plain, truncate

BATCH, STEPS = 16, 150
WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
RUNS = [(BASE, None), (TUNED, 0.0), *((name, w) for w in WEIGHTS for name in (PLAIN, DTNH))]


def measure(options: Namespace) -> Results:
    """Run every method at every weight and seed, each seed from a base of its own."""
    found = [of_seed(seed) for seed in tqdm(range(options.seeds), desc="seeds")]
    return {
        "question": "What does DTNH change about KL to the base in a language model?",
        "seeds": list(range(options.seeds)),
        "runs": [
            {"method": method, "weight": weight}
            | {k: record.numbers([losses[i][j] for losses in found]) for j, k in enumerate(LOSSES)}
            for i, (method, weight) in enumerate(RUNS)
        ],
    }


def of_seed(seed: int) -> list[list[float]]:
    """Return the losses of every run, in nats per 100 characters."""
    manual, old, code, new = texts(LENGTH + 1, seed)
    rows = np.random.default_rng(seed).integers(len(code), size=(STEPS, BATCH))
    base, loss = pretrain(seed, manual.reshape(-1, BATCH, LENGTH + 1)), jax.jit(loss_and_logits)
    losses = []
    for method, weight in RUNS:
        rule = truncate if method == DTNH else plain
        params = base if method == BASE else fine_tune(base, weight, code[rows], rule)
        losses.append([100 * float(loss(params, text)[0]) for text in (old, code, new)])
    return losses


seeds = option("--seeds", type=int, default=10, metavar="N", help="Run N seeds (default: 10).")
QUESTION = Question(
    "language", __doc__, measure, report.text, report.failures, report.draw, options=seeds
)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
