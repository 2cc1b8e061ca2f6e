"""A model tested: measures on labeled images, what may explain them, and figures."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optax_dtnh.finetune import log, metrics, run_folder
from optax_dtnh.finetune.batches import evaluation_batches
from optax_dtnh.finetune.dataset import Tested, open_test
from optax_dtnh.finetune.errors import UsageError, listed, named
from optax_dtnh.finetune.examples import OF_DATA, Selected
from optax_dtnh.finetune.run import check_apart
from optax_dtnh.finetune.tfds import PREFIX
from optax_dtnh.finetune.trained import Trained, probabilities, read, trained_images

MEASURES, CONFUSION, MISTAKES = "metrics.json", "confusion_matrix.png", "mistakes.png"
DRAWN = 1000  # classes up to which the confusion matrix is drawn


class Outcome(NamedTuple):
    """The predictions of a model for labeled images, and their measures."""

    source: Selected
    labels: np.ndarray  # [N], positions among the classes of the model
    probabilities: np.ndarray  # [N, C]
    measures: dict[str, Any]

    @property
    def right(self) -> np.ndarray:
        """Whether each image is classified right."""
        return self.probabilities.argmax(-1) == self.labels


def evaluate(out: Path, where: dict[str, Any], results: Path | None = None) -> None:
    """Print the measures of the model in `out` on test images, and what may matter.

    `where` may have `data`, `labels`, `data_dir` and `classes`; None stands for that of the run.
    The measures and figures are also written into the folder `results`.

    The model was trained on none of the test images of its own data.
    """
    trained = read(out)
    if results is not None:
        _check_results(results, [trained.settings["data"], where.get("data")])
    with named("FOLDER"):
        tested = test_images(trained, out, where)
    found = outcome(trained, tested.images)
    remarks = " ".join(_remarks(trained, tested, own=where.get("data") is None))
    print(*filter(None, [*metrics.in_words(found.measures), remarks]), sep="\n")
    if results is not None:
        with named("--results", "--out"), run_folder.writing(results / MEASURES):
            results.mkdir(parents=True, exist_ok=True)
            run_folder.write_json(results / MEASURES, found.measures)
            draw(results, found)


def outcome(trained: Trained, source: Selected) -> Outcome:
    """Return the predictions of the model for labeled images, and their measures."""
    size = trained.settings["batch_size"]
    batches = evaluation_batches(source, trained.preprocessing, batch_size=size)
    shares = np.concatenate([found for _, found in probabilities(trained, batches)])
    labels = np.array(source.labels)
    return Outcome(source, labels, shares, metrics.measured(shares, labels, trained.classes))


def draw(folder: Path, found: Outcome) -> None:
    """Write the confusion matrix, and the most wrong images, if there are any, as figures."""
    measures, classes = found.measures, list(found.measures["classes"])
    if len(classes) <= DRAWN:
        title = f"test accuracy {measures['accuracy']:.1%} of {measures['images']} images"
        log.save(folder / CONFUSION, metrics.draw_confusion(measures, title))
    (folder / MISTAKES).unlink(missing_ok=True)
    if measures["accuracy"] < 1:
        mistakes = metrics.draw_mistakes(found.source, found.labels, found.probabilities, classes)
        log.save(folder / MISTAKES, mistakes)


def _check_results(results: Path, data: Iterable[str | None]) -> None:
    """Refuse a folder in the data, where figures would become images, and that of a run."""
    with named("--results", "--out"):
        for folder in filter(None, data):
            check_apart(folder, results)
    if (results / run_folder.SETTINGS).exists():
        raise UsageError(
            f"`--results` should be another folder than that of a run, got '{results}', whose "
            "figures would be replaced. Name another one."
        )


def _remarks(trained: Trained, tested: Tested, *, own: bool) -> Iterator[str]:
    """Yield what may explain the accuracy, a sentence each."""
    present = {image.label for image in tested.images.images}
    if without := [name for name in trained.classes if name not in present]:
        yield f"None is of class {listed(without)}."
    if tested.trained:
        yield f"The model was trained on {tested.trained} of them."
    if own and not tested.same:
        yield "The data have changed since the run."
    if tested.left_out:
        yield f"Left out: {listed(tested.left_out, 9)}."


def test_images(trained: Trained, out: Path, where: dict[str, Any]) -> Tested:
    """Return the test images, with labels that are positions among the classes of the model."""
    settings, given = trained.settings, {k: v for k, v in where.items() if v is not None}
    name = given.pop("data", settings["data"])
    options = {option: settings[option] for option in OF_DATA}
    if os.path.realpath(name) != os.path.realpath(settings["data"]):
        options |= {"labels": None, "classes": ()}
    if not name.startswith(PREFIX):
        options["data_dir"] = None
    before = run_folder.summary(out)["found"]["data_sha256"]
    seen = trained_images(out)
    return open_test(name, before, **options | given, known=trained.classes, trained=seen)
