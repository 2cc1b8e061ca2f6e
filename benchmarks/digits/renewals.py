"""How rarely may both gradients be taken? Accuracy and the guarantee of `value_and_dtnh_grad`.

    python -m benchmarks.digits.renewals

Tasks and settings are those of `benchmarks.digits.variants`, with KnowDist and with distillation of
the source's logits. Both gradients are taken in every `k`-th step. `features` removes the conflict
in the gradients of the features, image by image, and takes one backward pass of the sum. The
accuracy of every cell is compared with that at k = 1, paired by seed, over 20 seeds.

Claims:

- The default of `every` is the largest k up to which the mean difference is above -0.3 points and
  no cell loses more than 1 point beyond chance.
- With k = 1, no step has `<update, g> < <g, g>` beyond rounding. With every other k, some have.

It takes about 30 minutes on two idle cores.
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
from benchmarks.digits.methods import OPTIMIZERS, RECIPE, batch_features, cross_entropy
from benchmarks.digits.network import BACKBONE, classify
from benchmarks.digits.training import correct, with_new_head
from benchmarks.digits.variants import cases
from benchmarks.digits.variants.runs import COMPILER_OPTIONS, IN_ONE_THREAD, WORKERS
from benchmarks.harness.command import Question, command
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import Interval, paired_difference
from benchmarks.harness.tables import markdown
from optax_dtnh import DTNHGradState, first_order_change, plain, value_and_dtnh_grad
from optax_dtnh.regularizers import distillation, feature_distance

TITLE = "How rarely may both gradients be taken?"
PERIODS, WEIGHTS, SEEDS = (1, 2, 4, 8, 16), (0.1, 1.0, 10.0), 20
# What is given to `value_and_dtnh_grad`; `features` is by hand.
WAYS: dict[str, dict[str, Any]] = {str(k): {"every": k} for k in PERIODS}
WAYS |= {"features": {}, "plain": {"rule": plain}}
MASKS = {"KnowDist": BACKBONE, "distillation": None}
ROUNDING = 1e-4  # of |update| |g|: far above that of float32, far below any loss that matters
LOST = "cells that lose over 1 point"
BELOW, MISSING = "steps with `<update, g> < <g, g>`", "missing in these, of `<g, g>`"


def losses(regularizer: str, params: Any, source: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Return loss and regularizer of a batch."""
    f, f_s = batch_features(params, x), batch_features(source, x)
    return cross_entropy(params, f, y), of_features(regularizer, params, source, f, f_s)


def of_features(regularizer: str, params: Any, source: Any, f: Any, f_s: Any) -> jax.Array:
    """Return the regularizer, given the features."""
    if regularizer == "KnowDist":
        return feature_distance(f, f_s)
    logits, logits_s = (jax.vmap(partial(classify, p))(a) for p, a in ((params, f), (source, f_s)))
    return distillation(logits, logits_s, temperature=2.0)


def in_features(regularizer: str, weight: Any, state: Any, params: Any, source: Any, *batch: Any):
    """Return the sum that is conflict-free in the features, by one backward pass."""
    x, y = batch
    f, pull = jax.vjp(lambda p: batch_features(p, x), params)
    head, d_g = jax.grad(cross_entropy, (0, 1))(params, f, y)
    by = jax.grad(of_features, (1, 3))
    head_r, d_r = by(regularizer, params, source, f, batch_features(source, x))
    dot, sq = (jnp.sum(a * d_g, -1, keepdims=True) for a in (d_r, d_g))
    d_r = d_r - jnp.minimum(dot, 0.0) / jnp.where(sq == 0, 1.0, sq) * d_g
    (through,) = pull(d_g + weight * d_r)
    return None, jax.tree.map(lambda a, b, c: a + b + weight * c, through, head, head_r), state


def train(regularizer: str, way: str, tx: Any, weight: Any, seed: Any, source: Any, *given: Any):
    """Return correct answers, and share and mean size of the steps below the guarantee."""
    (task, batches), params, mask = given, with_new_head(seed, source), MASKS[regularizer]
    evaluate = value_and_dtnh_grad(partial(losses, regularizer), weight, mask=mask, **WAYS[way])
    evaluate = partial(in_features, regularizer, weight) if way == "features" else evaluate
    pixels, labels = map(jnp.asarray, task.target)

    def part(tree: Any) -> Any:
        return {name: x for name, x in tree.items() if mask is None or mask[name]}

    def step(carry, batch):
        params, state, kept = carry
        x, y = (pixels, labels) if batch is None else (pixels[batch], labels[batch])
        _, grads, kept = evaluate(kept, params, source, x, y)
        g, sum_ = part(methods.loss_gradient(params, source, x, y)), part(grads)
        missing = optax.tree.norm(g) ** 2 - first_order_change(sum_, g)
        beyond = missing > ROUNDING * (optax.tree.norm(sum_) * optax.tree.norm(g))
        lost = jnp.where(beyond, missing / optax.tree.norm(g) ** 2, 0.0)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, kept), lost

    carry = params, tx.init(params), DTNHGradState()
    (params, *_), lost = jax.lax.scan(step, carry, batches, length=RECIPE.steps)
    below, size = jnp.mean(lost > 0), jnp.sum(lost) / jnp.maximum(jnp.sum(lost > 0), 1)
    return jnp.sum(correct(params, task.test)), below, size


def measure(options: Namespace) -> Results:  # noqa: ARG001
    """Run every way on every case, the runs of one program in one worker."""
    grid = cases.WHOLE._replace(seeds=SEEDS)
    inputs = cases.inputs_of(grid)
    txs = {o.name: optax.chain(methods.HEAD_DECAY, o.direction, o.rate) for o in OPTIMIZERS}
    keys = [*itertools.product(txs, (16, None), MASKS, WAYS)]

    def work(key: Any) -> list[dict[str, Any]]:
        optimizer, batch, regularizer, way = key
        one = jax.vmap(partial(train, regularizer, way, txs[optimizer]), (None, 0, 0, 0, 0))
        run = jax.jit(one, compiler_options=COMPILER_OPTIONS | IN_ONE_THREAD)
        here = [case for case in grid.cases if (case.optimizer, case.batch) == (optimizer, batch)]
        return [
            {"case": case.name, "regularizer": regularizer, "weight": weight, "way": way}
            | numbers(run(np.float32(weight), np.arange(SEEDS), *inputs(case)))
            for case, weight in itertools.product(here, WEIGHTS)
        ]

    with ThreadPoolExecutor(WORKERS) as pool:
        found = tqdm(pool.map(work, keys), total=len(keys), desc="programs")
        runs = [row for rows in found for row in rows]
    return {"question": TITLE, "test_images": cases.TEST_SIZE, "seeds": SEEDS, "runs": runs}


def numbers(outcome: tuple[jax.Array, jax.Array, jax.Array]) -> dict[str, Any]:
    """Return correct answers by seed, and the means of the other two over seeds."""
    right, below, size = outcome
    means = (float(f"{np.mean(x):.4g}") for x in (below, size))
    return {"correct": right.tolist(), **dict(zip(("below", "size"), means, strict=True))}


def differences(results: Results, way: str, **where: Any) -> list[Interval]:
    """Return the difference in accuracy to k = 1 of every cell, in points."""

    def accuracies(way: str) -> list[np.ndarray]:
        return [
            100 * np.array(run["correct"]) / results["test_images"]
            for run in results["runs"]
            if {"way": way, **where}.items() <= run.items()
        ]

    return list(map(paired_difference, accuracies(way), accuracies("1")))


def row_of(results: Results, way: str) -> dict[str, Any]:
    """Return what one way does to the accuracy and to the guarantee."""
    runs = [(run["below"], run["size"]) for run in results["runs"] if run["way"] == way]
    below, size = np.array(runs).T
    cells = differences(results, way)
    return {
        "both gradients": f"every {way}" if way.isdigit() else way,
        **{f"weight {w:g}": mean(differences(results, way, weight=w)) for w in WEIGHTS},
        "all": mean(cells),
        "worst cell": min(cells, key=lambda cell: cell.mean).signed(),
        LOST: f"{sum(map(loses, cells))} of {len(cells)}",
        BELOW: f"{below.mean():.1%}",
        MISSING: f"{np.average(size, weights=below + 1e-9):.0%}",
    }


def mean(cells: list[Interval]) -> str:
    """Return the mean of differences."""
    return f"{np.mean([cell.mean for cell in cells]):+.2f}"


def loses(cell: Interval) -> bool:
    """Return whether a loss of more than 1 point is beyond chance."""
    return bool(cell.mean + (cell.half_width or 0.0) < -1.0)


def largest(results: Results) -> int:
    """Return the largest k up to which nothing is lost."""

    def keeps(k: int) -> bool:
        cells = differences(results, str(k))
        return float(mean(cells)) > -0.3 and not any(map(loses, cells))

    return max(itertools.takewhile(keeps, PERIODS))


def table(results: Results) -> str:
    """Return differences of accuracy to k = 1 in points, and the guarantee."""
    return markdown([row_of(results, way) for way in WAYS])


def failures(results: Results) -> list[str]:
    """Return a message for every claim that does not hold."""
    default = inspect.signature(value_and_dtnh_grad).parameters["every"].default
    below = {k: row_of(results, str(k))[BELOW] for k in PERIODS}
    held = {
        f"`every` is {default}, the largest k {largest(results)}": default == largest(results),
        f"k = 1: {below[1]} of the steps are below": below[1] == "0.0%",
        "with a larger k, no step is below": "0.0%" not in [below[k] for k in PERIODS[1:]],
    }
    return [message for message, holds in held.items() if not holds]


QUESTION = Question(
    "digits.renewals", __doc__, measure, lambda results: f"# {TITLE}\n\n{table(results)}", failures
)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
