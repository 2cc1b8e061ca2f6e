"""Scores of what is chosen among, by short cross-validation: all folds and candidates in one call.

The candidates are fine-tuning, a regularizer and its DTNH form, at several weights. A candidate is
three numbers, so that one compiled program trains all of them at once.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from benchmarks.digits import methods, mini_batches
from benchmarks.digits.data import Images
from benchmarks.digits.methods import PAIRS, Method, Optimizer, batch_logits, optimizers
from benchmarks.digits.network import BACKBONE, Params
from benchmarks.digits.training import fine_tune
from benchmarks.digits.variants import cases
from benchmarks.digits.variants.cases import Case, Grid
from benchmarks.digits.variants.forms import name_of
from benchmarks.digits.variants.runs import COMPILER_OPTIONS
from benchmarks.harness import record
from benchmarks.harness.record import Results
from optax_dtnh.finetune.forms import FORMS


class Candidate(NamedTuple):
    """The numbers that tell the candidates apart, each an array with one entry per candidate."""

    weight: Any  # of the regularizer, 0 for fine-tuning
    removed: Any  # share of the conflict that is removed: 0 for the plain regularizer, 1 for DTNH
    decay: Any  # weight decay of the backbone, of fine-tuning alone


class Folds(NamedTuple):
    """Which images each fold learns from and which it is scored on."""

    learned: np.ndarray  # indices, shape `[folds, images - images / folds]`
    held_out: np.ndarray  # indices, shape `[folds, images / folds]`
    batches: np.ndarray | None  # into `learned`, `[folds, steps, size]`; None for full batches


FOLDS, STEPS = 5, 50  # of the cross-validation, steps in each fold


def candidates(weights: Sequence[float]) -> Candidate:
    """Return fine-tuning, then per weight the plain regularizer and its DTNH form."""
    rows = [(0.0, 0.0, methods.RECIPE.backbone_decay)]
    rows += [(weight, removed, 0.0) for weight in weights for removed in (0.0, 1.0)]
    return Candidate(*np.array(rows, np.float32).T)


def names(regularizer: str, weights: Sequence[float]) -> list[tuple[str, float | None]]:
    """Return method and weight of the candidates, as in the record of the variants."""
    both = [name_of(regularizer, form) for form in ("plain", "before")]
    return [(methods.FINE_TUNING, None), *((m, weight) for weight in weights for m in both)]


def method(optimizer: Optimizer, regularizer: str) -> Method:
    """Return what trains any candidate, its optimizer a function of a `Candidate`."""

    def build(one: Any) -> optax.GradientTransformation:
        def rule(dot, ref_sq, reg_sq):
            del ref_sq, reg_sq
            return 1.0, one.removed * jnp.minimum(dot, 0.0)

        decay = optax.chain(optax.add_decayed_weights(one.decay, mask=BACKBONE), methods.HEAD_DECAY)
        options = {"decay": decay, "rule": rule}
        trained = methods.regularized(regularizer, optimizer, FORMS["before"], **options)
        return trained.optimizer(one.weight)

    gradients = methods.regularized(regularizer, optimizer, FORMS["before"]).gradients
    return Method(regularizer, build, gradients, regularizer)


def folds_of(labels: np.ndarray, seed: int, batch: int | None) -> Folds:
    """Return equal folds with about the same number of images of every label."""
    shuffled = np.random.default_rng([seed, 4]).permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    dealt, folds = by_label.reshape(-1, FOLDS).T, range(FOLDS)
    learned = np.stack([np.delete(dealt, i, axis=0).ravel() for i in folds])
    if batch is None:
        return Folds(learned, dealt, None)
    what = learned.shape[1], STEPS, batch
    return Folds(
        learned, dealt, np.stack([mini_batches.draw(100 * seed + i, *what) for i in folds])
    )


@functools.partial(jax.jit, static_argnames=("method", "steps"), compiler_options=COMPILER_OPTIONS)
def held_out_logits(
    candidates: Candidate,
    seeds: np.ndarray,
    sources: Params,
    targets: Images,
    folds: Folds,
    *,
    method: Method,
    steps: int,
) -> jax.Array:
    """Return the logits of the images held out, `[seeds, candidates, folds, images, classes]`.

    All but the candidates are stacked by seed. Every fold trains every candidate for so many steps,
    with a new head on the source's backbone; each image is held out once.
    """

    def logits(candidate, seed, source, target, fold):
        learned = jax.tree.map(lambda x: jnp.asarray(x)[fold.learned], target)
        flags = jnp.ones(steps)
        params, _ = fine_tune(
            method, candidate, seed, source, learned, flags, fold.batches, lambda _: None
        )
        return batch_logits(params, jnp.asarray(target.pixels)[fold.held_out])

    over_folds = jax.vmap(logits, (None, None, None, None, 0))
    over_candidates = jax.vmap(over_folds, (0, None, None, None, None))

    inputs = seeds, sources, targets, folds
    return jax.lax.map(lambda of_seed: over_candidates(candidates, *of_seed), inputs)


def brier_score(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean squared error of the probabilities of every candidate and seed.

    `logits` are from `held_out_logits`, `labels` of shape `[seeds, folds, images]`. The score is
    bounded: a few images with confidently wrong answers, which noisy labels bring with them, do not
    decide alone.
    """
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = odds / odds.sum(-1, keepdims=True)
    wrong = probabilities - np.eye(logits.shape[-1])[labels[:, None]]
    return np.asarray(np.mean(np.sum(wrong**2, axis=-1), axis=(2, 3), dtype=np.float64))


def scored(grid: Grid) -> Results:
    """Return the settings, and the scores by case and regularizer of a grid, lower is better."""
    inputs = cases.inputs_of(grid)
    trained = {
        (optimizer.name, regularizer): method(optimizer, regularizer)
        for optimizer, regularizer in itertools.product(optimizers(STEPS), PAIRS)
    }
    scores = []
    for case, name in tqdm(list(itertools.product(grid.cases, PAIRS)), desc="decisions"):
        network, task, _ = inputs(case)
        found = scores_of(grid, case, trained[case.optimizer, name], network, task.target)
        scores.append({"case": case.name, "regularizer": name, "brier": found})
    settings = {
        "cross_validation": {"folds": FOLDS, "steps": STEPS},
        "weights": list(grid.weights),
        "seeds": list(range(grid.seeds)),
        "cases": [case.name for case in grid.cases],
    }
    return {"settings": settings, "scores": scores}


def scores_of(
    grid: Grid, case: Case, method: Method, network: Any, target: Images
) -> list[list[float | None]]:
    """Return the scores of one case and regularizer, one list of candidates per seed.

    They have 4 digits, far finer than their noise; None is for what is not finite.
    """
    seeds = np.arange(grid.seeds)
    each = [folds_of(y, i, case.batch) for i, y in enumerate(target.labels)]
    folds = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    inputs = candidates(grid.weights), seeds, network, target, folds
    logits = held_out_logits(*inputs, method=method, steps=STEPS)
    held_out = np.stack([y[i] for y, i in zip(target.labels, folds.held_out, strict=True)])
    scores = brier_score(np.asarray(logits), held_out)
    return [[x and float(f"{x:.4g}") for x in record.numbers(row)] for row in scores]
