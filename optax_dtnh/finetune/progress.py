"""What a training shows: a bar on a terminal, and a line in the log every so many steps."""

import math
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from tqdm import tqdm

from optax_dtnh.finetune import methods, processes, run_folder
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.settings import Settings
from optax_dtnh.finetune.step import Metrics


class Progress:
    """Shows and logs the means over the steps since the last line; only the main process does.

    Args:
      settings: Settings of the run.
      out: Its folder.
      done: Steps made before.
    """

    def __init__(self, settings: Settings, out: Path, done: int):
        self.settings = settings
        self.path = out / run_folder.LOG
        # `disable=None`: only on a terminal.
        off = None if processes.is_main() else True
        options = {"unit": "step", "desc": "training", "smoothing": 0.05, "disable": off}
        self.bar = tqdm(initial=done, total=settings.steps, **options)
        self.learning_rate = methods.learning_rate(settings)
        self.start(done)

    def start(self, done: int) -> None:
        """Start the clock, with `done` steps made."""
        self.done = done
        self.clock = time.perf_counter()

    def add(self, done: int, sums: Metrics) -> None:
        """Show and log the means.

        Raises:
          UsageError: The loss is no longer finite.
        """
        means = {k: float(x) / float(sums.steps) for k, x in sums._asdict().items()}
        if not math.isfinite(means["loss"]):
            raise UsageError(
                f"The training loss should stay finite, got {means['loss']} by step {done}. Lower "
                "--learning-rate or --weight, in another --out."
            )
        entry = self._entry(done, means)
        if processes.is_main():
            run_folder.append(self.path, entry)
            self.bar.set_postfix_str(_in_words(entry))
            if self.bar.disable:
                print(f"step {done}/{self.settings.steps}: {_in_words(entry)}", flush=True)
        self.start(done)

    def _entry(self, done: int, means: dict[str, float]) -> dict[str, Any]:
        with_value = self.settings.regularizer in methods.REGULARIZERS
        steps, seconds = done - self.done, time.perf_counter() - self.clock
        return {
            "step": done,
            "loss": means["loss"],
            "accuracy": means["accuracy"],
            "regularizer": means["regularizer"] if with_value else None,
            "conflict": None if self.settings.weight is None else means["conflict"],
            "learning_rate": float(jnp.asarray(self.learning_rate(done - 1))),
            "images_per_second": steps * self.settings.batch_size / seconds if steps else None,
        }


def _in_words(entry: dict[str, Any]) -> str:
    parts = [f"loss {entry['loss']:.3g}", f"accuracy {entry['accuracy']:.1%}"]
    if entry["conflict"] is not None:
        parts.append(f"conflict {entry['conflict']:.0%}")
    if entry["images_per_second"] is not None:
        parts.append(f"{entry['images_per_second']:.1f} images/s")
    return ", ".join(parts)
