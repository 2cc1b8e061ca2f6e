"""Every form on every case: fine-tuning with mini-batches, the runs of one program in one worker.

On the way every run is asked whether its steps descend.
"""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks.digits.data import Images, Task
from benchmarks.digits.methods import RECIPE, Method, loss_gradient
from benchmarks.digits.network import Params
from benchmarks.digits.training import PRETRAINING, Step, correct, fine_tune, loss
from benchmarks.digits.variants import cases, forms
from benchmarks.digits.variants.cases import Case, Grid
from benchmarks.harness import record
from benchmarks.harness.record import Results
from optax_dtnh import GradientPair, first_order_change

Run = tuple[Case, Method]
WORKERS = os.cpu_count() or 1
# One step in so many is asked: with mini-batches it costs the gradient of all images.
ASKED = 5


class Outcome(NamedTuple):
    """What one run is judged by."""

    correct: jax.Array  # how many test images are classified correctly
    training_loss: jax.Array  # on all target images and the labels trained on, at the end
    descent: jax.Array  # share of the steps that lower this loss to first order


# Many programs, each run a few times: level 1 halves their compilation, and they are as fast.
COMPILER_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1}
# Every program has a thread of its own: its operations are too small to share among cores.
IN_ONE_THREAD = {"xla_cpu_multi_thread_eigen": False}


def program(method: Method, steps: int = RECIPE.steps) -> Callable[..., Outcome]:
    """Return `fine_tune_all` of a method, to be compiled for the shapes that it is called with.

    The compiled programs are dropped with it: one process cannot hold those of a whole grid, each
    takes some hundreds of the memory mappings that the system allows it.
    """
    fun = functools.partial(fine_tune_all, method, steps)
    return jax.jit(fun, compiler_options=COMPILER_OPTIONS | IN_ONE_THREAD)


def fine_tune_all(
    method: Method,
    steps: int,
    weights: np.ndarray,
    seeds: np.ndarray,
    sources: Params,
    tasks: Task,
    batches: np.ndarray | None,
) -> Outcome:
    """Return the outcomes of every weight and seed, of shape `[weights, seeds]`.

    All but the weights are stacked by seed. One weight after the other: the states of all seeds
    at one weight just fit into a core's cache, which made it twice as fast as all at once.
    """
    asked = jnp.arange(steps) % ASKED == 0

    def outcome(weight, seed, source, task, batches):
        observe = functools.partial(descends, source, task.target, batches is None)
        params, found = fine_tune(
            method, weight, seed, source, task.target, asked, batches, observe
        )
        params = method.result(params, source)
        right = jnp.sum(correct(params, task.test))
        return Outcome(right, loss(params, task.target), jnp.sum(found) / jnp.sum(asked))

    over_seeds = jax.vmap(outcome, (None, 0, 0, 0, 0))
    return jax.lax.map(lambda w: over_seeds(w, seeds, sources, tasks, batches), weights)


def descends(source: Params, target: Images, full_batch: bool, step: Step) -> jax.Array:
    """Return whether a step that is asked lowers the loss on the target to first order."""

    def change():
        if full_batch:
            grads = step.grads
            g = grads.loss_grads if isinstance(grads, GradientPair) else grads
            return first_order_change(step.updates, g)
        pixels, labels = map(jnp.asarray, target)
        g = loss_gradient(step.params, source, pixels, labels)
        return first_order_change(step.updates, g)

    return jax.lax.cond(step.flag, change, lambda: jnp.zeros([])) < 0


def run(grid: Grid, split: Callable[..., tuple] = lambda *inputs: inputs) -> Results:
    """Return the settings of a grid, and the record of every run of it.

    `split` turns seeds, source networks, tasks and batches of a case, stacked by seed, into those
    that are run.
    """
    everything = [(case, m) for case in grid.cases for m in grid.methods[case.optimizer]]
    inputs, seeds, found = cases.inputs_of(grid), np.arange(grid.seeds), {}
    with tqdm(total=len(everything), desc="runs", smoothing=0) as bar:

        def work(group: list[Run]) -> None:
            compiled = program(group[0][1])
            for case, method in group:
                weights = forms.weights_of(method.regularizer, grid.weights)
                used = np.array(weights, np.float32)
                outcome = numbers(compiled(used, *split(seeds, *inputs(case))))
                found[case, method] = {"case": case.name, "method": method.name, **outcome}
                bar.update()

        groups = itertools.groupby(sorted(everything, key=program_of), program_of)
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(work, [list(group) for _, group in groups]))
    return {**settings(grid), "runs": [found[run] for run in everything]}


def settings(grid: Grid) -> Results:
    """Return everything that the numbers depend on but code and machine."""
    return {
        "weights": list(grid.weights),
        "seeds": list(range(grid.seeds)),
        "test_images": cases.TEST_SIZE,
        "fine_tuning": RECIPE._asdict(),
        "pretraining": PRETRAINING._asdict(),
        "cases": [
            {"name": case.name, **case._asdict(), "source": case.source.name} for case in grid.cases
        ],
        "methods": {name: [m.name for m in methods] for name, methods in grid.methods.items()},
    }


def program_of(run: Run) -> tuple[str, str, int, str]:
    """Return what the runs of one compiled program have in common."""
    case, method = run
    return case.optimizer, str(case.batch), case.shots, method.name


def numbers(outcome: Outcome) -> dict[str, Any]:
    """Return by weight: correct answers by seed, and the means of the other two over seeds."""
    loss, descent = (np.mean(x, axis=1) for x in (outcome.training_loss, outcome.descent))
    return {
        "correct": np.asarray(outcome.correct).tolist(),
        "training_loss": [x and float(f"{x:.4g}") for x in record.numbers(loss)],
        "descent": [round(float(x), 4) for x in descent],
    }
