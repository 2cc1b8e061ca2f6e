"""Batches of images with grain: decoded beside the training, resumable, one share per process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grain
import numpy as np
from absl import flags

from .examples import Source
from .images import Preprocessing, evaluation_image, reason, training_image

MAX_THREADS = 16


class TrainingBatches(grain.DatasetIterator):
    """Endless batches, whose state is the number of batches taken, whatever the number of workers.

    Args:
      dataset: Of this process's batches.
      workers: Processes that prepare them; 0 for threads of this one.
    """

    def __init__(self, dataset: grain.MapDataset, workers: int):
        super().__init__()
        self._dataset = dataset
        self._workers = workers
        self._taken = 0
        self._started: grain.DatasetIterator | None = None

    def __next__(self) -> dict[str, np.ndarray]:
        """Return the next batch."""
        if self._started is None:
            self._started = iter(_prefetched(self._dataset[self._taken :], self._workers))
        batch = next(self._started)
        self._taken += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` of an iterator with the same data, seed and batch size takes."""
        return {"next_batch": self._taken}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to the batch that followed when the state was taken."""
        self.close()
        self._taken = int(state["next_batch"])

    def close(self) -> None:
        """Stop the threads or processes; the next batch starts new ones."""
        if self._started is not None:
            self._started.close()
            self._started = None


def training_batches(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> TrainingBatches:
    """Return endless batches, in a new order each epoch and with a new crop of every image.

    Every epoch has each image once; a batch may hold the end of one epoch and the start of the
    next, so a source may be smaller than a batch. A batch depends on its number, the source, the
    preprocessing, the batch size and the seed alone.

    Args:
      source: What to train on.
      preprocessing: Applied with random crops and mirroring.
      batch_size: Of the global batch.
      seed: Of order, crops and mirroring, from 0 to 2^32 - 1.
      workers: Processes that prepare batches; 0 for threads of this one.
      shard: This process and the number of processes. Process p gets the p-th part of the rows of
        each global batch.

    Returns:
      An iterator of dicts of "image", float32 `[B, S, S, 3]`, and "label", int32 `[B]`, with
      grain's `get_state` and `set_state`; `close` ends its threads or processes.

    Raises:
      ValueError: The source is empty, or the batch cannot be shared evenly.
    """
    process, processes = shard
    if batch_size < 1 or batch_size % processes:
        raise ValueError(
            f"`--batch` should be a multiple of the number of processes, {processes}, "
            f"got {batch_size}. Change it to one."
        )
    if len(source) == 0:
        raise ValueError("`source` should hold images to train on, got none. Give it some.")
    images = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    examples = images.random_map(partial(_training_example, preprocessing=preprocessing))
    # Endless, so there is no remainder; but rounded up, the length would be more than a `len` can.
    batches = examples.batch(batch_size // processes, drop_remainder=True)
    return TrainingBatches(batches[process::processes], workers)


def evaluation_batches(
    source: Source, preprocessing: Preprocessing, *, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Return each image once, in order, the last batch filled up with black images of class 0.

    Returns:
      An iterator of dicts as of `training_batches`, and "valid", bool `[B]`: False for the filling.
    """
    examples = grain.MapDataset.source(source).map(
        partial(_evaluation_example, preprocessing=preprocessing)
    )
    batches = _prefetched(examples.batch(batch_size, drop_remainder=False), workers=0)
    return iter(batches.map(partial(_filled_up, batch_size=batch_size)))


def _prefetched(batches: grain.MapDataset, workers: int) -> grain.IterDataset:
    """Prepare batches ahead of their use: about one per thread, since a batch is tens of MB."""
    if workers == 0:
        threads = min(os.cpu_count() or 1, MAX_THREADS)
        return batches.to_iter_dataset(grain.ReadOptions(threads, max(threads, 2)))
    if not flags.FLAGS.is_parsed():
        # Grain reads its own flags when it starts a process, which needs them parsed.
        flags.FLAGS.mark_as_parsed()
    one_by_one = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    return one_by_one.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=1))


def _training_example(
    example: dict[str, Any], rng: np.random.Generator, *, preprocessing: Preprocessing
) -> dict[str, Any]:
    with _naming(example):
        image = training_image(example["image"], preprocessing, rng)
    return {"image": image, "label": np.int32(example["label"])}


def _evaluation_example(example: dict[str, Any], *, preprocessing: Preprocessing) -> dict[str, Any]:
    with _naming(example):
        image = evaluation_image(example["image"], preprocessing)
    return {"image": image, "label": np.int32(example["label"]), "valid": np.True_}


@contextmanager
def _naming(example: dict[str, Any]) -> Iterator[None]:
    """Say which image it was: one that was damaged after the data were checked."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"`--data` should hold images that can be read, got '{example['name']}' "
            f"({reason(error, example['name'])}). "
            "Mend it, and run the command again to continue."
        ) from error


def _filled_up(batch: dict[str, np.ndarray], *, batch_size: int) -> dict[str, np.ndarray]:
    missing = batch_size - len(batch["label"])
    return {k: np.pad(v, [(0, missing)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}
