"""Finished runs side by side: their curves, and their test accuracy, paired where it can be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optax_dtnh.finetune import evaluate, log, metrics, run_folder, trained
from optax_dtnh.finetune.compare.candidates import AVERAGE
from optax_dtnh.finetune.compare.result import FIGURE, RESULT, estimate, points
from optax_dtnh.finetune.errors import UsageError, named
from optax_dtnh.finetune.run import check_apart

SHOWN = ("method", "weight", "seed", "steps")


class Finished(NamedTuple):
    """A finished run, tested anew."""

    row: dict[str, Any]  # of `comparison.json`
    images: tuple[str, tuple[bytes, ...]]  # SHA-256 of the data, and of the images it is tested on
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
    run_folder.check_free(out, but=(RESULT, FIGURE))
    first, *others = runs = [_finished(folder, out) for folder in folders]
    for run in others:
        if run.images == first.images:
            run.row["difference"] = estimate(run.right.astype(float) - first.right)
    with named("RUN", "--out"):
        logs = {
            f"{i} {'/'.join(folder.resolve().parts[-2:])}": log.entries(folder / log.LOG)
            for i, folder in enumerate(folders, 1)
        }
    with run_folder.locked(out):
        log.save(out / FIGURE, log.curves(logs))
        run_folder.write_json(out / RESULT, {"runs": [run.row for run in runs]})
    heading = ("run", *SHOWN, "test accuracy", "to the first")
    print(*metrics.aligned([heading, *(_cells(run.row) for run in runs)]), sep="\n")
    if any(run.images != first.images for run in runs):
        print("A run without a difference to the first is tested on other images.")
    print(f"Wrote {RESULT} and {FIGURE} to {out}.")


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
    row = {"run": str(folder)} | {name: model.settings[name] for name in SHOWN}
    row |= {"method": AVERAGE} if AVERAGE in facts else {}
    row |= {"accuracy": float(right.mean()), "images": len(right), "difference": None}
    digests = tuple(image.digest for image in tested.images.images)
    return Finished(row, (facts["data_sha256"], digests), right)


def _cells(row: dict[str, Any]) -> list[str]:
    settings = ["" if row[name] is None else str(row[name]) for name in SHOWN]
    accuracy = f"{100 * row['accuracy']:.1f} of {row['images']}"
    return [row["run"], *settings, accuracy, points(row["difference"], signed=True)]
