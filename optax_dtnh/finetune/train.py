"""The command `train`, by way of the modules that it is made of today."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from optax_dtnh.finetune import export, identity, interrupts, loop, opening, processes, report
from optax_dtnh.finetune.dataset import broken_ones
from optax_dtnh.finetune.errors import usage_errors
from optax_dtnh.finetune.settings import Settings


def train(settings: Settings, out: Path, distributed: dict[str, Any] | None) -> None:
    """Train, write what people keep and test it: whatever of that has not been done yet."""
    try:
        with interrupts.remembered(), usage_errors(ValueError, OSError, ImportError):
            if distributed is not None:
                processes.join(distributed)
            with processes.together():
                if identity.check(out, settings):
                    print(f"The run in {out} is finished. {_result(report.summary(out))}")
                else:
                    _run(settings, out)
    except KeyboardInterrupt:
        text = interrupts.message(out, settings.save_every)
        interrupts.leave(text, several=distributed is not None)


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
        "settings": asdict(settings),
        "found": opened.found,
        "environment": report.environment(),
    }
    report.write_json(out / report.SUMMARY, summary)
    return summary


def _result(summary: dict[str, Any], images: int | None = None) -> str:
    of = "" if images is None else f" of {images} images"
    return f"Test accuracy {summary['test_accuracy']:.2%}{of} ({summary['test_accuracy']!r})."
