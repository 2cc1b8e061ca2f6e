"""The commands `evaluate` and `predict`, by way of the modules that they are made of today."""

from collections.abc import Sequence
from pathlib import Path

from optax_dtnh.finetune import export
from optax_dtnh.finetune.dataset import open_data
from optax_dtnh.finetune.errors import usage_errors
from optax_dtnh.finetune.train import _result


def evaluate(out: Path, data: str | None) -> None:
    """Print the accuracy of the model in `out` on the test images of `data`.

    They are split as the run's were, so that none it was trained on is among them.
    """
    with usage_errors():
        trained = export.read(out)
        settings = trained.settings
        opened = open_data(
            data or settings["data"],
            train_per_class=settings["train_per_class"],
            seed=settings["seed"],
            skip_broken=settings["skip_broken"],
            data_dir=settings["data_dir"],
        )
        export.check_classes(trained, opened.classes, data or settings["data"])
        print(_result({"test_accuracy": export.accuracy(trained, opened.test)}, len(opened.test)))


def predict(out: Path, images: Sequence[Path]) -> None:
    """Print the most probable class of each image, and how probable it is."""
    with usage_errors():
        trained = export.read(out)
        results = export.predictions(trained, images)
        for path, (label, probability) in zip(images, results, strict=True):
            print(f"{path}\t{label}\t{probability:.4f}")
