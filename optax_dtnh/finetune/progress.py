"""What a training shows: a bar on a terminal, and a line in the log every so many steps."""

import math
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from tqdm import tqdm

from optax_dtnh.finetune import log, methods, processes, run_folder
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.settings import Settings
from optax_dtnh.finetune.step import State

ESTIMATED, ESTIMATED_S = 10, 10  # steps, or seconds, that the estimate of the time is made from
OF_REGULARIZER = ("regularizer", "penalty", "conflict", "cosine", "ratio")
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
    """Shows and logs the means over the steps since the last line, with one clock for speeds."""

    def __init__(self, settings: Settings, out: Path, done: int):
        self.settings, self.path = settings, out / log.LOG
        # `disable=None`: only on a terminal.
        off = None if processes.is_main() else True
        options = {"unit": "step", "desc": "training", "smoothing": 0.05, "disable": off}
        self.bar = tqdm(initial=done, total=settings.steps, **options)
        self.events = log.events(settings, out, done)
        self.learning_rate = methods.learning_rate(settings)
        self.distance = jax.jit(methods.l2_sp_value)
        logged = log.entries(self.path) if processes.is_main() else []
        self.largest = max((entry["loss"] for entry in logged), default=0.0)
        self.warned = self.estimated = False
        self.start(done)

    def start(self, done: int) -> None:
        """Start the clock, with `done` steps made."""
        self.done, self.clock = done, time.perf_counter()

    def estimate(self, done: int) -> None:
        """Say the time left after the first steps that have ended, if no line has said it."""
        steps, seconds = done - self.done, time.perf_counter() - self.clock
        if not self.estimated and steps and (steps >= ESTIMATED or seconds >= ESTIMATED_S):
            self.estimated, speed = True, self._speed(done)
            left = self._left(done, speed)
            processes.say(f"About {left} to go after step {done}, at {speed:.1f} images/s.")

    def entry(self, done: int, state: State) -> log.Entry:
        """Return the means, which are finite, and for L2-SP its value now, in every process."""
        sums, weight = jax.device_get(state.sums), self.settings.weight
        means = {k: float(x) / float(sums.steps) for k, x in sums._asdict().items()}
        if self.settings.regularizer == "l2_sp":
            means["regularizer"] = float(self.distance(state.params, state.opt_state))
        means["penalty"] = means["regularizer"] * (weight or 0)
        for name, text in (("loss", "training loss"), ("penalty", "weighted regularizer")):
            if not math.isfinite(means[name]):
                raise UsageError(
                    f"The {text} should stay finite, got {means[name]} by step {done}. Lower "
                    "--learning-rate, or --weight if there is one, in another --out."
                )
        return {
            "step": done,
            "loss": means["loss"],
            "accuracy": means["accuracy"],
            **{name: _known(means[name], weight) for name in OF_REGULARIZER},
            "learning_rate": float(jnp.asarray(self.learning_rate(done - 1))),
            "images_per_second": self._speed(done) if done > self.done else None,
        }

    def add(self, entry: log.Entry) -> None:
        """Show and log an entry, and start the clock anew."""
        self._warn(entry)
        if processes.is_main():
            run_folder.append_lines(self.path, [entry])
        log.write_event(self.events, entry)
        self.bar.set_postfix_str(f"loss {entry['loss']:.3g}, accuracy {entry['accuracy']:.1%}")
        processes.say(f"step {entry['step']}/{self.settings.steps}: {self._in_words(entry)}")
        self.start(entry["step"])

    def _speed(self, done: int) -> float:
        """Return the images per second since the clock was started."""
        return (done - self.done) * self.settings.batch_size / (time.perf_counter() - self.clock)

    def _left(self, done: int, speed: float) -> str:
        seconds = (self.settings.steps - done) * self.settings.batch_size / speed
        return tqdm.format_interval(seconds)

    def _in_words(self, entry: log.Entry) -> str:
        known = {name: value for name, value in entry.items() if value is not None}
        words = [text.format(known[name]) for name, text in WORDS.items() if name in known]
        if speed := known.get("images_per_second"):
            self.estimated = True
            words.append(f"{self._left(entry['step'], speed)} left")
        return ", ".join(words)

    def _warn(self, entry: log.Entry) -> None:
        """Warn once; the largest loss counts, because the last ones may be near 0."""
        self.largest = max(self.largest, entry["loss"])
        loss, penalty, weight = self.largest, entry["penalty"], self.settings.weight
        if self.warned or weight is None or penalty <= TOO_LARGE * loss:
            return
        self.warned = True
        processes.say(
            f"warning: `--weight` should keep the regularizer below {TOO_LARGE} times the loss, "
            f"got {weight:g}, with which it is {penalty:.3g} at step {entry['step']} and no loss "
            f"above {loss:.3g}. Lower it to about {weight * loss / penalty:.1g}, in another --out.",
            file=sys.stderr,
        )


def _known(mean: float, weight: float | None) -> float | None:
    """Return a mean if there is a regularizer; the ratio to a gradient of 0 is infinite."""
    return mean if weight is not None and math.isfinite(mean) else None
