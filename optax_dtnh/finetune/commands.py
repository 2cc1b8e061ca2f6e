"""The three things that the command does: run, evaluate, predict."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax

from optax_dtnh.finetune import export, identity, loop, opening, processes, report
from optax_dtnh.finetune.options import Settings
from optax_dtnh.finetune.sources import broken_ones, open_data


def join(address: dict[str, Any] | None) -> None:
    """Become one of several processes that train together, None for a single one."""
    if address is not None:
        processes.join(address)


def run(settings: Settings, out: Path) -> None:
    """Train, write what people keep and test it: whatever of that has not been done yet."""
    with processes.together():
        if identity.check(out, settings):
            print(f"The run in {out} is finished. {_result(report.summary(out))}")
        else:
            _run(settings, out)


def _run(settings: Settings, out: Path) -> None:
    opened = opening.open_run(settings)
    first = jax.process_index() == 0
    processes.everywhere(lambda: identity.claim(out, settings, opened.found) if first else None)
    identity.claim(out, settings, opened.found)  # by now it is there, for every process
    with identity.alone(out) if first else nullcontext():
        _announce(opened)
        model = loop.train(opened, out)
        if first:
            export.write(out, model, opened.data.classes, opened.preprocessing)
            summary = _summed_up(opened, out)
            print(f"{_result(summary)} Wrote {export.MODEL}, {report.SUMMARY} and more to {out}")


def evaluate(out: Path, data: str | None) -> None:
    """Print the accuracy of the model in `out` on the test images of `data`.

    They are split as the run's were, so that none it was trained on is among them.
    """
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
    trained = export.read(out)
    for path, (label, probability) in zip(images, export.predictions(trained, images), strict=True):
        print(f"{path}\t{label}\t{probability:.4f}")


def _announce(opened: opening.Run) -> None:
    if jax.process_index() == 0:
        data, settings = opened.data, opened.settings
        left_out = f", {broken_ones(len(data.broken))} left out" if data.broken else ""
        print(
            f"{settings.method}: {len(data.train)} training and {len(data.test)} test images of "
            f"{len(data.classes)} classes{left_out}; {opened.mesh.size} x "
            f"{jax.devices()[0].device_kind}",
            flush=True,
        )


def _summed_up(opened: opening.Run, out: Path) -> dict[str, Any]:
    """Test the model that was written, draw the figure, and end the run with its summary."""
    log = report.entries(out / report.LOG)
    settings = opened.settings
    result = {"test_accuracy": export.accuracy(export.read_model(out), opened.data.test)}
    title = f"{settings.method}: test accuracy {result['test_accuracy']:.1%}"
    report.draw(out / report.FIGURE, log, title)
    summary = {
        **result,
        **report.summed_up(log),
        "settings": settings._asdict(),
        "found": opened.found,
        "environment": report.environment(),
    }
    report.write_json(out / report.SUMMARY, summary)
    return summary


def _result(summary: dict[str, Any], images: int | None = None) -> str:
    of = "" if images is None else f" of {images} images"
    return f"Test accuracy {summary['test_accuracy']:.2%}{of} ({summary['test_accuracy']!r})."
