"""How rarely may both gradients be taken? Accuracy and the guarantee of `value_and_dtnh_grad`.

    python -m benchmarks.digits.renewals

Tasks and settings are those of `benchmarks.digits.variants`, with KnowDist and with distillation of
the source's logits, over 20 seeds. The accuracy of every cell is compared with that of both
gradients in every step, paired by seed. The ways are

- both gradients in every `k`-th step;
- one backward pass of the sum that has no conflict in the gradients of the features, image by
  image;
- the plain sum.

Claims:

- The default of `every` is the largest k up to which the mean difference is above -0.3 points and
  no cell's interval lies below -1 point.
- With k = 1, no step has `<update, g> < 0.99 <g, g>`. With every other k, some have.

It takes 15 minutes on two cores.
"""

import inspect
import itertools
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from benchmarks.digits import methods
from benchmarks.digits.methods import OPTIMIZERS, RECIPE
from benchmarks.digits.renewals import report
from benchmarks.digits.renewals.ways import MASKS, PERIODS, WAYS
from benchmarks.digits.training import correct, with_new_head
from benchmarks.digits.variants import cases
from benchmarks.digits.variants.runs import COMPILER_OPTIONS, IN_ONE_THREAD, WORKERS
from benchmarks.harness.command import Question, command
from benchmarks.harness.record import Results
from optax_dtnh import first_order_change, value_and_dtnh_grad

TITLE = "How rarely may both gradients be taken?"
WEIGHTS, SEEDS = (0.1, 1.0, 10.0), 20
CASES = cases.WHOLE.cases
ROUNDING = 0.01  # of <g, g>: far above that of float32


def train(regularizer: str, way: str, tx: Any, weight: Any, seed: Any, source: Any, *given: Any):
    """Return correct answers, and for every step what is missing and if it took both gradients.

    What is missing is `<g, g> - <update, g>` over `<g, g>`, 0 up to rounding.
    """
    (task, batches), params, mask = given, with_new_head(seed, source), MASKS[regularizer]
    evaluate, kept = WAYS[way].build(regularizer, weight)
    pixels, labels = map(jnp.asarray, task.target)

    def part(tree: Any) -> Any:
        return {name: x for name, x in tree.items() if mask is None or mask[name]}

    def step(carry, batch):
        params, state, kept = carry
        x, y = (pixels, labels) if batch is None else (pixels[batch], labels[batch])
        both = kept.step % int(way) == 0 if way.isdigit() else False
        _, grads, kept = evaluate(kept, params, source, x, y)
        g, sum_ = part(methods.loss_gradient(params, source, x, y)), part(grads)
        missing = optax.tree.norm(g) ** 2 - first_order_change(sum_, g)
        lost = missing / optax.tree.norm(g) ** 2
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, kept), (
            jnp.where(lost > ROUNDING, lost, 0.0),
            both,
        )

    carry = params, tx.init(params), kept
    (params, *_), (lost, both) = jax.lax.scan(step, carry, batches, length=RECIPE.steps)
    return jnp.sum(correct(params, task.test)), lost, both


def measure(options: Namespace) -> Results:  # noqa: ARG001
    """Run every way on every case, the runs of one program in one worker."""
    grid = cases.WHOLE._replace(cases=CASES, seeds=SEEDS)
    inputs = cases.inputs_of(grid)
    txs = {o.name: optax.chain(methods.HEAD_DECAY, o.direction, o.rate) for o in OPTIMIZERS}
    programs = dict.fromkeys((case.optimizer, case.batch) for case in grid.cases)
    keys = [(*program, *rest) for program in programs for rest in itertools.product(MASKS, WAYS)]

    def work(key: Any) -> list[dict[str, Any]]:
        optimizer, batch, regularizer, way = key
        one = jax.vmap(partial(train, regularizer, way, txs[optimizer]), (None, 0, 0, 0, 0))
        run = jax.jit(one, compiler_options=COMPILER_OPTIONS | IN_ONE_THREAD)
        here = [case for case in grid.cases if (case.optimizer, case.batch) == (optimizer, batch)]
        settings = {"regularizer": regularizer, "batch": batch, "way": way}
        return [
            {"case": case.name, "source": case.source.name, "weight": weight, **settings}
            | numbers(*run(np.float32(weight), np.arange(SEEDS), *inputs(case)))
            for case, weight in itertools.product(here, WEIGHTS)
        ]

    with ThreadPoolExecutor(WORKERS) as pool:
        found = tqdm(pool.map(work, keys), total=len(keys), desc="programs")
        runs = [row for rows in found for row in rows]
    return {"question": TITLE, "test_images": cases.TEST_SIZE, "seeds": SEEDS, "runs": runs}


def numbers(right: jax.Array, lost: jax.Array, both: jax.Array) -> dict[str, Any]:
    """Return correct answers by seed, and what the steps of all seeds have in common."""
    below = np.asarray(lost)[np.asarray(lost) > 0]
    shares = {"renewed": np.mean(both), "below": np.mean(lost > 0), "rising": np.mean(lost > 1)}
    rounded = {name: float(f"{share:.4g}") for name, share in shares.items()}
    missing = float(f"{np.median(below):.4g}") if below.size else None
    return {"correct": right.tolist(), **rounded, "missing": missing}


def failures(results: Results) -> list[str]:
    """Return a message for every claim that does not hold."""
    default = inspect.signature(value_and_dtnh_grad).parameters["every"].default
    largest = report.largest(results)
    below = {k: report.mean_of(results, "below", way=str(k)) for k in PERIODS}
    held = {
        f"`every` is {default}, the largest k {largest}": default == largest,
        f"k = 1: {below[1]:.2%} of the steps are below": below[1] == 0,
        "with a larger k, no step is below": min(below[k] for k in PERIODS[1:]) > 0,
    }
    return [message for message, holds in held.items() if not holds]


QUESTION = Question(
    "digits.renewals", __doc__, measure, lambda r: f"# {TITLE}\n\n{report.text(r)}", failures
)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
