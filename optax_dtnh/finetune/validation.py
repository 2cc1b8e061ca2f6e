"""The validation of a run while it trains: how often, on which images, and what it decides.

All that it decides follows from the log up to a step, so that a resumed run decides the same.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from optax_dtnh.finetune import log, processes, step
from optax_dtnh.finetune.batches import evaluation_batches
from optax_dtnh.finetune.examples import Selected
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.settings import VAL_EVERY

Entry = dict[str, Any]
Validate = Callable[[step.State], dict[str, float]]


def is_due(run: Run, done: int) -> bool:
    """Return whether the run is validated after this step, as it is after its last."""
    if run.data.val is None:
        return False
    epoch = math.ceil(len(run.data.train) / run.settings.batch_size)
    every = run.settings.val_every or max(epoch, VAL_EVERY)
    return done % every == 0 or done == run.settings.steps


def validator(run: Run, graph: Any) -> Validate | None:
    """Return a function from a state to `val_loss` and `val_accuracy`, for all processes to call.

    `graph` is the definition of the network. Without validation images, there is none.
    """
    images = run.data.val
    if images is None:
        return None

    @jax.jit
    def sums(params: Any, stats: Any, batch: dict[str, jax.Array]) -> list[jax.Array]:
        model = nnx.merge(graph, params, stats)
        model.eval()
        logits, _ = model(batch["image"])
        right = jnp.argmax(logits, axis=-1) == batch["label"]
        found = step.cross_entropy(logits, batch["label"]), right
        return [jnp.sum(jnp.where(batch["valid"], x, 0)) for x in found]

    def validate(state: step.State) -> dict[str, float]:
        batches = (step.on_devices(batch, run.mesh) for batch in _batches(run, images))
        parts = [jax.device_get(sums(state.params, state.stats, batch)) for batch in batches]
        loss, right = np.sum(np.array(parts, np.float64), axis=0) / len(images)
        return {"val_loss": float(loss), "val_accuracy": float(right)}

    return validate


def _batches(run: Run, images: Selected) -> Iterator[dict[str, np.ndarray]]:
    """Yield this process's rows of every batch; all processes have as many batches."""
    process, count = jax.process_index(), jax.process_count()
    size = run.settings.batch_size // count
    mine = [i for i in range(len(images)) if i // size % count == process]
    part = Selected(images, tuple(mine), tuple(images.labels[i] for i in mine))
    batches = evaluation_batches(part, run.preprocessing, batch_size=size) if mine else iter(())
    side = run.preprocessing.image_size
    none = {"image": np.zeros((size, side, side, 3), np.float32), "label": np.zeros(size, np.int32)}
    for _ in range(math.ceil(len(images) / run.settings.batch_size)):
        yield next(batches, none | {"valid": np.zeros(size, bool)})


def verdict(run: Run, done: int) -> tuple[bool, bool]:
    """Return whether the step is the best so far, and whether the patience has ended with it."""
    entries = log.entries(run.out / log.LOG) if processes.is_main() else []
    found, patience = best(entries), run.settings.patience
    after = [x for x in entries if found and "val_loss" in x and x["step"] > found["step"]]
    is_best = found is not None and found["step"] == done
    is_over = patience is not None and len(after) >= patience
    return processes.anywhere(is_best), processes.anywhere(is_over)


def best(entries: list[Entry]) -> Entry | None:
    """Return the first line of the log with the best accuracy and, among these, the lowest loss."""
    validated = [entry for entry in entries if "val_loss" in entry]
    return max(validated, key=lambda x: (x["val_accuracy"], -x["val_loss"]), default=None)
