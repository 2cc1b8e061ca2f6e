"""How rarely may both gradients be taken? Accuracy and the guarantee of `value_and_dtnh_grad`.

    python -m benchmarks.digits.renewals

The tasks and settings are those of `benchmarks.digits.variants`, with KnowDist and with the
distillation of the source's logits, weights 0.1, 1 and 10. Both gradients are taken in every
`k`-th step. `features` resolves the conflict in the gradients of the features, image by image, and
takes one backward pass of the sum. A cell is a task, an optimizer, a batch size, a regularizer and
a weight; differences are to k = 1, paired by seed, with 95 % intervals over 20 seeds.

Claims:

- The default of `every` is the largest k up to which the mean loss of accuracy is under 0.3 points
  and no cell loses more than 1 point beyond chance, or 1 if there is none.
- With k = 1, no step has `<update, g> < <g, g>` beyond rounding; with every other k, some have.

It takes ten minutes on two idle cores.
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

from benchmarks.digits import data, experiment, methods, mini_batches
from benchmarks.digits.methods import OPTIMIZERS, RECIPE, batch_features, cross_entropy
from benchmarks.digits.network import BACKBONE
from benchmarks.digits.training import correct, with_new_head
from benchmarks.digits.variants import cases
from benchmarks.digits.variants.runs import COMPILER_OPTIONS, IN_ONE_THREAD, WORKERS
from benchmarks.harness.command import Question, command
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import Interval, paired_difference
from benchmarks.harness.tables import markdown
from optax_dtnh import DTNHGradState, first_order_change, plain, value_and_dtnh_grad
from optax_dtnh.regularizers import distillation, feature_distance

PERIODS, WEIGHTS, SEEDS = (1, 2, 4, 8, 16), (0.1, 1.0, 10.0), 20
WAYS = (*map(str, PERIODS), "features", "plain")
MASKS = {"KnowDist": BACKBONE, "distillation": None}
ROUNDING = 1e-4  # of |update| |g|: far above that of float32, far below any loss that matters


def losses(regularizer, params, source, x, y):
    """Return loss and regularizer of a batch."""
    f, f_s = batch_features(params, x), batch_features(source, x)
    return cross_entropy(params, f, y), of_features(regularizer, params, source, f, f_s)


def of_features(regularizer, params, source, f, f_s):
    """Return the regularizer, given the features."""
    if regularizer == "KnowDist":
        return feature_distance(f, f_s)
    logits = (
        jax.vmap(methods.network.classify, (None, 0))(*args)
        for args in ((params, f), (source, f_s))
    )
    return distillation(*logits, temperature=2.0)


def in_features(regularizer, weight, state, params, source, x, y):
    """Return the sum that is conflict-free in the features, by one backward pass."""
    f, pull = jax.vjp(lambda p: batch_features(p, x), params)
    head, d_g = jax.grad(cross_entropy, (0, 1))(params, f, y)
    f_s = batch_features(source, x)
    own, d_r = jax.grad(of_features, (1, 3))(regularizer, params, source, f, f_s)
    dot, sq = (jnp.sum(a * d_g, -1, keepdims=True) for a in (d_r, d_g))
    d_r = d_r - jnp.minimum(dot, 0.0) / jnp.where(sq == 0, 1.0, sq) * d_g
    through = pull(d_g + weight * d_r)[0]
    return None, jax.tree.map(lambda a, b, c: a + b + weight * c, through, head, own), state


def step_of(regularizer, way, weight):
    """Return `(state, params, *batch) -> (values, gradient, state)` of one way."""
    if way == "features":
        return partial(in_features, regularizer, weight)
    options: Any = {"rule": plain} if way == "plain" else {"every": int(way)}
    fun = partial(losses, regularizer)
    return value_and_dtnh_grad(fun, weight, mask=MASKS[regularizer], **options)


def train(regularizer, way, tx, weight, seed, source, task, batches):
    """Return correct answers, and share and size of the steps below the guarantee."""
    evaluate, start = step_of(regularizer, way, weight), with_new_head(seed, source)
    pixels, labels = map(jnp.asarray, task.target)
    inside = MASKS[regularizer] or dict.fromkeys(BACKBONE, True)

    def part(tree):
        return {k: tree[k] for k, kept in inside.items() if kept}

    def step(carry, batch):
        params, state, kept = carry
        x, y = (pixels, labels) if batch is None else (pixels[batch], labels[batch])
        _, grads, kept = evaluate(kept, params, source, x, y)
        g = part(methods.loss_gradient(params, source, x, y))
        missing = optax.tree.norm(g) ** 2 - first_order_change(part(grads), g)
        scale = optax.tree.norm(part(grads)) * optax.tree.norm(g)
        lost = jnp.where(missing > ROUNDING * scale, missing / optax.tree.norm(g) ** 2, 0.0)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, kept), lost

    carry = start, tx.init(start), DTNHGradState()
    (params, *_), lost = jax.lax.scan(step, carry, batches, length=RECIPE.steps)
    below = jnp.mean(lost > 0)
    return (
        jnp.sum(correct(params, task.test)),
        below,
        jnp.sum(lost) / jnp.maximum(below * lost.size, 1),
    )


def measure(options: Namespace) -> Results:  # noqa: ARG001
    """Run every way on every case, the runs of one program in one worker."""
    grid, digits = cases.WHOLE._replace(seeds=SEEDS), data.load()
    tasks = cases.tasks_of(grid, digits)
    sources = experiment.source_networks([c.source for c in grid.cases], digits, SEEDS)
    txs = {o.name: optax.chain(methods.HEAD_DECAY, o.direction, o.rate) for o in OPTIMIZERS}
    keys = [*itertools.product(txs, (16, None), MASKS, WAYS)]
    found, seeds = [], np.arange(SEEDS)

    def work(key: Any) -> None:
        optimizer, batch, regularizer, way = key
        one = jax.vmap(partial(train, regularizer, way, txs[optimizer]), (None, 0, 0, 0, 0))
        run = jax.jit(one, compiler_options=COMPILER_OPTIONS | IN_ONE_THREAD)
        for case in grid.cases:
            if (case.optimizer, case.batch) != (optimizer, batch):
                continue
            drawn = batch and np.stack(
                [
                    mini_batches.draw(i, data.CLASSES * case.shots, RECIPE.steps, batch)
                    for i in seeds
                ]
            )
            for weight in WEIGHTS:
                task, source = tasks[case.shots, case.noise], sources[case.source.name]
                right, below, size = run(np.float32(weight), seeds, source, task, drawn)
                row = {"case": case.name, "regularizer": regularizer, "weight": weight, "way": way}
                numbers = {"below": float(below.mean()), "size": float(size.mean())}
                found.append(row | {"correct": right.tolist()} | numbers)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(tqdm(pool.map(work, keys), total=len(keys), desc="programs"))
    return {"test_images": cases.TEST_SIZE, "seeds": SEEDS, "runs": found}


def differences(results: Results, way: str) -> list[Interval]:
    """Return the difference in accuracy to k = 1 of every cell, in points."""
    by_cell = {_cell(run): run for run in results["runs"] if run["way"] == "1"}
    scale = 100 / results["test_images"]
    return [
        paired_difference(*(scale * np.array(r["correct"]) for r in (run, by_cell[_cell(run)])))
        for run in results["runs"]
        if run["way"] == way
    ]


def _cell(run: Results) -> tuple:
    return run["case"], run["regularizer"], run["weight"]


def table(results: Results) -> str:
    """Return what every way does to the accuracy and to the guarantee."""
    return markdown([_row(results, way) for way in WAYS])


def _row(results: Results, way: str) -> dict[str, Any]:
    runs = [run for run in results["runs"] if run["way"] == way]
    below, size = (np.array([run[k] for run in runs]) for k in ("below", "size"))
    cells = differences(results, way)
    worst = min(cells, key=lambda d: d.mean)
    mean = np.mean([d.mean for d in cells])
    return {
        "both gradients": f"every {way}" if way.isdigit() else way,
        "accuracy to every step": None if way == "1" else f"{mean:+.2f}",
        "worst cell": None if way == "1" else worst.signed(),
        "cells that lose over 1 point": sum(map(loses, cells)),
        "steps with `<update, g> < <g, g>`": f"{below.mean():.1%}",
        "missing in these, of `<g, g>`": f"{np.average(size, weights=below + 1e-9):.0%}",
    }


def loses(difference: Interval) -> bool:
    """Return whether a loss of more than 1 point is beyond chance."""
    return difference.mean + (difference.half_width or 0.0) < -1.0


def largest(results: Results) -> int:
    """Return the largest k up to which nothing is lost."""

    def passes(k: int) -> bool:
        cells = differences(results, str(k))
        return np.mean([d.mean for d in cells]) > -0.3 and not any(map(loses, cells))

    return max(itertools.takewhile(passes, PERIODS))


def failures(results: Results) -> list[str]:
    """Return a message for every claim that does not hold."""
    default = inspect.signature(value_and_dtnh_grad).parameters["every"].default
    found, below = (
        largest(results),
        {w: _row(results, w)["steps with `<update, g> < <g, g>`"] for w in WAYS},
    )
    return [
        *([] if found == default else [f"the largest k is {found}, the default {default}"]),
        *([] if below["1"] == "0.0%" else [f"k = 1: {below['1']} of the steps below"]),
        *[f"k = {k}: no step below" for k in PERIODS[1:] if below[str(k)] == "0.0%"],
    ]


TITLE = "How rarely may both gradients be taken?"
QUESTION = Question(
    "digits.renewals",
    __doc__,
    lambda options: {"question": TITLE, **measure(options)},
    lambda results: f"# {TITLE}\n\n{table(results)}",
    failures,
)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
