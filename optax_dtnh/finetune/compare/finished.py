"""Finished runs side by side: their curves, and their test accuracy, paired where it can be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optax_dtnh.finetune import evaluate, log, metrics, run_folder, trained
from optax_dtnh.finetune.compare import record
from optax_dtnh.finetune.compare.candidates import AVERAGE
from optax_dtnh.finetune.compare.choice import Interval, interval
from optax_dtnh.finetune.compare.result import points
from optax_dtnh.finetune.errors import UsageError, named
from optax_dtnh.finetune.run import check_apart

SHOWN = ("method", "weight", "seed", "steps")


class Finished(NamedTuple):
    """A finished run, tested anew."""

    folder: Path
    settings: dict[str, Any]
    images: tuple[str, tuple[bytes, ...]]  # which images it is tested on: of which data, SHA-256
    right: np.ndarray  # for each of them, whether it is classified right


def compare_runs(folders: Sequence[Path], out: Path) -> None:
    """Print a table of the runs, and write it and the figure of their curves.

    Differences are to the first run, of runs that are tested on the same images.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UsageError(
            f"`RUN` should be two or more folders of runs, got {' '.join(map(str, folders))}. "
            "Name two or more, and each once."
        )
    run_folder.check_free(out, but=(record.RESULT, record.FIGURE))
    runs = [_finished(folder, out) for folder in folders]
    gains = [None, *(_gain(run, runs[0]) for run in runs[1:])]
    rows = [_row(run, gain) for run, gain in zip(runs, gains, strict=True)]
    with run_folder.locked(out):
        logs = {
            f"{i} {'/'.join(folder.resolve().parts[-2:])}": log.entries(folder / log.LOG)
            for i, folder in enumerate(folders, 1)
        }
        log.save(out / record.FIGURE, log.curves(logs))
        run_folder.write_json(out / record.RESULT, {"runs": rows})
    cells: list[Sequence[str]] = [("run", *SHOWN, "test accuracy", "to the first")]
    for row, gain in zip(rows, gains, strict=True):
        settings = ["" if row[name] is None else str(row[name]) for name in SHOWN]
        accuracy = f"{100 * row['accuracy']:.1f} of {row['images']}"
        cells.append((row["run"], *settings, accuracy, points(gain, signed=True)))
    print(*metrics.aligned(cells), sep="\n")
    if any(run.images != runs[0].images for run in runs):
        print("A run without a difference to the first is tested on other images.")
    print(f"Wrote {record.RESULT} and {record.FIGURE} to {out}.")


def _finished(folder: Path, out: Path) -> Finished:
    with named("RUN", "--out"):
        model = trained.read(folder)
    check_apart(model.settings["data"], out)
    with named("RUN", "--out"):
        tested = evaluate.test_images(model, folder, {})
    if not tested.same:
        raise UsageError(
            f"`RUN` should be a run whose data are as they were, got '{folder}', where "
            f"'{model.settings['data']}' has changed since. Restore the data, or train again."
        )
    facts, right = run_folder.summary(folder)["found"], evaluate.outcome(model, tested.images).right
    images = facts["data_sha256"], tuple(image.digest for image in tested.images.images)
    method = {"method": AVERAGE} if AVERAGE in facts else {}
    return Finished(folder, model.settings | method, images, right)


def _gain(run: Finished, first: Finished) -> Interval | None:
    """Return the accuracy gained over the first run, paired by image; None for other images."""
    same = run.images == first.images
    return interval(run.right.astype(float) - first.right) if same else None


def _row(run: Finished, gain: Interval | None) -> dict[str, Any]:
    shown = {name: run.settings[name] for name in SHOWN}
    accuracy = {"accuracy": float(run.right.mean()), "images": len(run.right)}
    return {"run": str(run.folder), **shown, **accuracy, "difference": gain and gain._asdict()}
