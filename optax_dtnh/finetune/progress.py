"""What a training shows: a bar on a terminal, and a line in the log every so many steps."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from optax_dtnh.finetune import log, methods, processes, run_folder
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.settings import Settings
from optax_dtnh.finetune.step import Metrics, State

Validate = Callable[[State], dict[str, float]]
ESTIMATED, ESTIMATED_S = 10, 10  # steps, or seconds, that the estimate of the time is made from
FINITE = {"loss": "training loss", "regularizer": "regularizer", "val_loss": "validation loss"}
TOO_LARGE = 10  # times the loss: beyond it, the regularizer decides alone

WORDS = {
    "loss": "loss {:.3g}",
    "accuracy": "training accuracy {:.1%}",
    "penalty": "weight * regularizer {:.3g}",
    "conflict": "conflict {:.0%}",
    "cosine": "cosine {:.2f}",
    "ratio": "weight * |r'| / |g| {:.2g}",
    "learning_rate": "learning rate {:.2g}",
    "val_loss": "validation loss {:.3g}",
    "val_accuracy": "validation accuracy {:.1%}",
    "images_per_second": "{:.1f} images/s",
}


class Progress:
    """Shows and logs the means over the steps since the last line; only the main process does."""

    def __init__(self, settings: Settings, out: Path, done: int):
        self.settings = settings
        self.path = out / log.LOG
        # `disable=None`: only on a terminal.
        off = None if processes.is_main() else True
        options = {"unit": "step", "desc": "training", "smoothing": 0.05, "disable": off}
        self.bar = tqdm(initial=done, total=settings.steps, **options)
        self.events = log.events(settings, out, done)
        self.learning_rate = methods.learning_rate(settings)
        self.distance = jax.jit(methods.l2_sp_value)
        logged = log.entries(self.path) if processes.is_main() else []
        self.largest = max((entry["loss"] for entry in logged), default=0.0)
        self.warned = False
        self.begun: tuple[int, float] | None = None
        self.start(done)

    def start(self, done: int) -> None:
        """Start the clock, with `done` steps made."""
        self.done, self.clock = done, time.perf_counter()

    def begin(self, done: int) -> None:
        """Start the clock, and that of the estimate."""
        self.start(done)
        self.begun = done, self.clock

    def estimate(self, done: int) -> None:
        """Say once how long the training takes, by `done` steps that have ended."""
        first, clock = self.begun or (done, 0.0)
        steps, seconds = done - first, time.perf_counter() - clock
        if steps < 1 or (steps < ESTIMATED and seconds < ESTIMATED_S):
            return
        self.begun = None
        if processes.is_main():
            left = tqdm.format_interval((self.settings.steps - done) * seconds / steps)
            speed = steps * self.settings.batch_size / seconds
            tqdm.write(f"About {left} to go after step {done}, at {speed:.1f} images/s.")

    def add(self, done: int, sums: Metrics, state: State, validate: Validate | None = None) -> None:
        """Show and log the means, for L2-SP its value now, and the validation, which are finite."""
        means = {k: float(x) / float(sums.steps) for k, x in sums._asdict().items()}
        if self.settings.regularizer == "l2_sp":
            means["regularizer"] = float(self.distance(state.params, state.opt_state))
        entry = self._entry(done, means) | (validate(state) if validate else {})
        for name, text in FINITE.items():
            if not math.isfinite(entry.get(name) or 0.0):
                raise UsageError(
                    f"The {text} should stay finite, got {entry[name]} by step {done}. Lower "
                    "--learning-rate or --weight, in another --out."
                )
        if processes.is_main():
            self._warn(entry)
            run_folder.append_lines(self.path, [entry])
            log.write_event(self.events, entry)
            self.bar.set_postfix_str(f"loss {entry['loss']:.3g}, accuracy {entry['accuracy']:.1%}")
            tqdm.write(f"step {done}/{self.settings.steps}: {self._in_words(entry)}")
            sys.stdout.flush()
        self.start(done)

    def _entry(self, done: int, means: dict[str, float]) -> dict[str, Any]:
        weight = self.settings.weight
        steps, seconds = done - self.done, time.perf_counter() - self.clock
        return {
            "step": done,
            "loss": means["loss"],
            "accuracy": means["accuracy"],
            "regularizer": None if weight is None else means["regularizer"],
            "penalty": None if weight is None else weight * means["regularizer"],
            **{name: _known(means[name], weight) for name in ("conflict", "cosine", "ratio")},
            "learning_rate": float(jnp.asarray(self.learning_rate(done - 1))),
            "images_per_second": steps * self.settings.batch_size / seconds if steps else None,
        }

    def _in_words(self, entry: dict[str, Any]) -> str:
        known = {name: value for name, value in entry.items() if value is not None}
        words = [text.format(known[name]) for name, text in WORDS.items() if name in known]
        if speed := known.get("images_per_second"):
            left = (self.settings.steps - entry["step"]) * self.settings.batch_size / speed
            words.append(f"{tqdm.format_interval(left)} left")
        return ", ".join(words)

    def _warn(self, entry: dict[str, Any]) -> None:
        """Warn once; the largest loss counts, because the last ones may be near 0."""
        self.largest = max(self.largest, entry["loss"])
        loss, penalty, weight = self.largest, entry["penalty"], self.settings.weight
        if self.warned or weight is None or penalty <= TOO_LARGE * loss:
            return
        self.warned = True
        tqdm.write(
            f"warning: `--weight` should keep the regularizer below {TOO_LARGE} times the loss, "
            f"got {weight:g}, with which it is {penalty:.3g} at step {entry['step']} and no loss "
            f"above {loss:.3g}. Lower it to about {weight * loss / penalty:.1g}, in another --out.",
            file=sys.stderr,
        )


def _known(mean: float, weight: float | None) -> float | None:
    """Return a mean of the two gradients if there are two; over a gradient of 0 it is infinite."""
    return mean if weight is not None and math.isfinite(mean) else None
