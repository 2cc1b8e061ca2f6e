"""Cross-validation with short trainings, all folds and candidates in one compiled call."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.digits import mini_batches
from benchmarks.digits.data import Images
from benchmarks.digits.gate.candidates import Candidate
from benchmarks.digits.methods import Method, batch_logits
from benchmarks.digits.network import Params
from benchmarks.digits.training import fine_tune
from benchmarks.digits.variants.training import COMPILER_OPTIONS


class Folds(NamedTuple):
    """Which images each fold learns from and which it is scored on."""

    learned: np.ndarray  # indices, shape `[folds, images - images / folds]`
    held_out: np.ndarray  # indices, shape `[folds, images / folds]`
    batches: np.ndarray | None  # into `learned`, `[folds, steps, size]`; None for full batches


def folds_of(labels: np.ndarray, seed: int, folds: int, steps: int, batch: int | None) -> Folds:
    """Return folds with about the same number of images of every label, whichever these are."""
    if len(labels) % folds:
        raise ValueError(
            f"`folds` should divide the number of images, {len(labels)}, got {folds}. "
            "Equal folds are what lets one program train them all."
        )
    shuffled = np.random.default_rng([seed, 4]).permutation(len(labels))
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")].reshape(-1, folds).T
    learned = np.stack([np.delete(dealt, i, axis=0).ravel() for i in range(folds)])
    if batch is None:
        return Folds(learned, dealt, None)
    drawn = [
        mini_batches.draw(100 * seed + i, learned.shape[1], steps, batch) for i in range(folds)
    ]
    return Folds(learned, dealt, np.stack(drawn))


def stacked_folds(labels: np.ndarray, folds: int, steps: int, batch: int | None) -> Folds:
    """Return the folds of all seeds, stacked; `labels` are of shape `[seeds, images]`."""
    of_seeds = [folds_of(of_seed, seed, folds, steps, batch) for seed, of_seed in enumerate(labels)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *of_seeds)


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
