"""The log as event files for TensorBoard, beside the JSON lines, where `--log` asks for them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optax_dtnh.finetune import processes
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.run_folder import writing
from optax_dtnh.finetune.settings import Settings

FOLDER = "tensorboard"


def check(settings: Settings) -> None:
    """Raise a `UsageError` where the package that writes event files is missing."""
    if settings.log and find_spec("tensorboardX") is None:
        raise UsageError(
            "`tensorboardX` is not installed, so `--log tensorboard` cannot write event files. Run "
            "`pip install tensorboardX`, or leave the option out."
        )


def opened(settings: Settings, out: Path, step: int) -> Any:
    """Return a writer, a context manager, or None; a resumed run replaces what follows `step`."""
    if not (settings.log and processes.is_main()):
        return None
    from tensorboardX import SummaryWriter

    with writing(out / FOLDER):
        return SummaryWriter(str(out / FOLDER), purge_step=step + 1)


def write(writer: Any, entry: dict[str, Any]) -> None:
    """Write a line of the log as scalars."""
    for name in entry.keys() - {"step"}:
        if writer and entry[name] is not None:
            writer.add_scalar(name, entry[name], entry["step"])
