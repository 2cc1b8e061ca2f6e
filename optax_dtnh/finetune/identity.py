"""Whose a folder is: a run's settings are its identity, and no other run may write there."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optax_dtnh.finetune import report
from optax_dtnh.finetune.settings import FREE, Settings


def check(out: Path, settings: Settings) -> bool:
    """Return whether the run in `out` is finished, False if there is none.

    Raises:
      ValueError: `out` is no folder, or another run's, or holds something else.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"`--out` should be a folder, got the file '{out}'. Name another one.")
    before = _recorded(out)
    if before is None:
        _check_free(out)
        return False
    _check_same(out, "settings", _plain(asdict(settings)), before["settings"])
    return (out / report.SUMMARY).is_file()


def claim(out: Path, settings: Settings, found: dict[str, Any]) -> None:
    """Write the identity of the run into `out`, which is made, or compare it with what is there.

    Args:
      out: The folder of the run.
      settings: Of the run.
      found: Facts about its source and data.

    Raises:
      ValueError: The facts differ: source or data have changed since the run was begun.
      OSError: The folder cannot be written to.
    """
    before = _recorded(out)
    if before is not None:
        return _check_same(out, "source and data", _plain(found), before["found"])
    path = out / report.SETTINGS
    with report.writing(path):
        out.mkdir(parents=True, exist_ok=True)
    report.write_json(path, {"settings": asdict(settings), "found": found})
    return None


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep the folder for this process, until it ends or is killed.

    Raises:
      ValueError: Another process has it.
    """
    folder = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            _lock(folder, out)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, out: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"`--out` should be a folder that no other process is running in, got '{out}'. Wait "
            "for that one, or stop it and repeat the command to go on."
        ) from error


def _recorded(out: Path) -> dict[str, Any] | None:
    path = out / report.SETTINGS
    if not path.is_file():
        return None
    try:
        recorded = json.loads(path.read_text())
        return {"settings": recorded["settings"], "found": recorded["found"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`--out` should hold a run's {report.SETTINGS} as it was written, got a damaged one "
            f"in '{out}'. Name another folder."
        ) from error


def _check_free(out: Path) -> None:
    names = sorted(os.listdir(out)) if out.is_dir() else []
    names = [name for name in names if not name.startswith(report.PARTIAL)]
    if names:
        raise ValueError(
            f"`--out` should be a new folder or that of this run, got '{out}', which holds "
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}. Name another one."
        )


def _check_same(out: Path, what: str, now: dict[str, Any], before: dict[str, Any]) -> None:
    names = sorted((now.keys() | before.keys()) - set(FREE))
    different = [
        f"{name} was {_short(before.get(name))} and is {_short(now.get(name))}"
        for name in names
        if now.get(name) != before.get(name)
    ]
    if different:
        raise ValueError(
            f"`--out` should be a new folder or that of a run with the same {what}, got '{out}', "
            f"where {'; '.join(different)}. Name another one, or repeat that run's command."
        )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))  # as it is read back: tuples are lists


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
