"""Batches of images with grain: decoded beside the training, and divided among the processes."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from threading import Thread
from typing import Any, cast

import grain
import numpy as np
from absl import flags
from PIL import Image

from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import Selected
from optax_dtnh.finetune.images import decode, evaluation_image, reason, training_image
from optax_dtnh.finetune.preprocessing import Preprocessing
from optax_dtnh.finetune.settings import Settings

MAX_THREADS = 16


def batches(
    source: Selected,
    preprocessing: Preprocessing,
    settings: Settings,
    *,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """Return the endless batches of the training, from that of step `start` on.

    Every epoch has each image once, in an order of its own and with a new crop of every image,
    unless `augment` is "none". A batch may hold the end of one epoch and the start of the next, so
    a source may be smaller than a batch. The global batch of a step depends on the step, the
    source, the preprocessing and the settings. It depends neither on `start` nor on the number of
    processes, nor on `workers`, the number of processes that prepare batches; 0 uses threads.

    A process whose `shard` is `(p, n)` gets the p-th of n parts of the rows of each global batch. A
    batch is a dict of "image", float32 `[B, S, S, 3]`, "label", int32 `[B]`, and with class weights
    "weight", float32 `[B]`, whose mean over the source is 1. `close` ends threads or processes.
    """
    process, processes = shard
    images = grain.MapDataset.source(source).seed(settings.seed).shuffle().repeat()
    weights = _weights(source.labels) if settings.class_weights else None
    options = {"preprocessing": preprocessing, "augment": settings.augment, "weights": weights}
    examples = images.random_map(partial(_training_example, **options))
    # Rounded up, the length of this endless data set would be more than a `len` can be.
    parts = examples.batch(settings.batch_size // processes, drop_remainder=True)
    return iter(_prefetched(parts[process::processes][start:], settings.workers))


def evaluation_batches(
    source: Selected, preprocessing: Preprocessing, *, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Return each image once, in order, in dicts as of `batches`; the last batch may be smaller."""
    examples = grain.MapDataset.source(source).map(
        partial(_evaluation_example, preprocessing=preprocessing)
    )
    return iter(_prefetched(examples.batch(batch_size, drop_remainder=False), workers=0))


def _prefetched(parts: grain.MapDataset, workers: int) -> grain.IterDataset:
    """Prepare about one batch per thread ahead of its use: a batch has tens of megabytes."""
    if workers == 0:
        threads = min(os.cpu_count() or 1, MAX_THREADS)
        return parts.to_iter_dataset(grain.ReadOptions(threads, max(threads, 2)))
    if not flags.FLAGS.is_parsed():
        # Grain reads its own flags when it starts a process, which needs them parsed.
        flags.FLAGS.mark_as_parsed()
    one_by_one = parts.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=1)
    return one_by_one.mp_prefetch(options, _follow_parent)


def _follow_parent(*_: int) -> None:
    """Let a decoding process outlive Ctrl-C, which a terminal sends it, but not its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = cast(Any, multiprocessing.parent_process())

    def follow():
        parent.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


def _weights(labels: Sequence[int]) -> np.ndarray:
    """Return balanced weights by class; TFDS names classes that have no image."""
    from sklearn.utils.class_weight import compute_sample_weight

    weights = np.ones(max(labels) + 1, np.float32)
    weights[list(labels)] = compute_sample_weight("balanced", labels)
    return weights


def _training_example(
    example: dict[str, Any],
    rng: np.random.Generator,
    *,
    preprocessing: Preprocessing,
    augment: str,
    weights: np.ndarray | None,
) -> dict[str, Any]:
    image, label = decoded(example), np.int32(example["label"])
    if augment == "none":
        pixels = evaluation_image(image, preprocessing)
    else:
        pixels = training_image(image, preprocessing, rng)
    weight = {} if weights is None else {"weight": weights[label]}
    return {"image": pixels, "label": label} | weight


def _evaluation_example(example: dict[str, Any], *, preprocessing: Preprocessing) -> dict[str, Any]:
    image = evaluation_image(decoded(example), preprocessing)
    return {"image": image, "label": np.int32(example["label"])}


def decoded(example: dict[str, Any]) -> Image.Image:
    """Return the image of an example; a `UsageError` names one that is damaged."""
    try:
        return decode(example["image"])
    # The image was damaged after the check, and Pillow's decoders raise all kinds of exceptions.
    except Exception as error:
        raise UsageError(
            f"`--data` should hold images that can be read, got '{example['name']}' "
            f"({reason(error, example['name'])}). Mend it, and run the command again to resume."
        ) from error
