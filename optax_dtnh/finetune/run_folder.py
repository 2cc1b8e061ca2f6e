"""The folder of a run: how its files are written and read, and whose it is.

The settings are the identity of a run. No other run may write into its folder.
"""

import fcntl
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from optax_dtnh.finetune import processes
from optax_dtnh.finetune.arguments import resolved
from optax_dtnh.finetune.errors import UsageError, flag, listed
from optax_dtnh.finetune.settings import DEFAULTS, FREE, Settings
from optax_dtnh.models import _pretrained
from optax_dtnh.models._fields import Fact

SETTINGS, SUMMARY = "settings.json", "summary.json"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a `UsageError` that names the file where the system refuses to write it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"`--out` should be a folder that can be written to, got '{path.parent}', which does "
            f"not take {path.name} ({getattr(error, 'strerror', None) or error}). Make room and "
            "run the same command again, or name another folder."
        ) from error


@contextmanager
def reading(out: Path, name: str) -> Iterator[None]:
    """Raise a `UsageError` that names a file of the run which does not hold what was written.

    Put it around the parsing of the file, and around nothing more.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        damaged = f"a damaged one ({' '.join(text.split())[:200]})"
        found = "none" if isinstance(error, FileNotFoundError) else damaged
        raise UsageError(
            f"`--out` should hold the {name} that a run has written, got {found} in '{out}'. "
            "Restore that file, or name another folder."
        ) from error


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` write the file: it appears whole, or not at all and with a `UsageError`."""
    with writing(path):
        _pretrained.atomically(path, write)


def save_text(path: Path, text: str) -> None:
    """Write the text as a file, atomically."""
    content = text.encode("utf-8", "backslashreplace")  # of names that are not Unicode
    atomically(path, lambda partial: partial.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Write the value as a JSON file, atomically."""
    save_text(path, json.dumps(value, indent=1) + "\n")


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a file of JSON lines, without one that a kill has cut off."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def append_lines(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Add entries to a file of JSON lines, in one write."""
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(_as_lines(entries))


def write_lines(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write entries as a file of JSON lines, atomically."""
    save_text(path, _as_lines(entries))


def _as_lines(entries: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries)


def recorded(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return settings and facts of the run in `out`; an older version's have our defaults.

    The settings of a finished run are also in its summary, which they have to agree with.
    """
    with reading(out, SETTINGS):
        record = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        given = {name: record["settings"][name] for name in ("source", "data")}
        settings = DEFAULTS | given | record["settings"]
        kept = DEFAULTS | summary(out)["settings"] if is_finished(out) else settings
        if different := _differences(settings, kept):
            raise ValueError(f"compared with {SUMMARY}, {different[0]}")
        return settings, dict(record["found"])


def is_finished(out: Path) -> bool:
    """Return whether a run has come to its end in the folder."""
    return (out / SUMMARY).is_file()


def summary(out: Path) -> dict[str, Any]:
    """Return the summary of a finished run."""
    with reading(out, SUMMARY):
        found = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
        # What is read later is there, or `reading` names what is not.
        _ = dict(found["settings"]), float(found["test_accuracy"]), found["found"]["data_sha256"]
    return found


def check(out: Path, settings: Settings, facts: dict[str, Any] | None = None) -> int | None:
    """Compare a run with the one that has begun in the folder; return how many more steps it has.

    This is None if no run has begun. `facts` are those about source and data, None as long as they
    are not known. More steps than before are allowed where the learning rate does not depend on
    their number.
    """
    with writing(out / SETTINGS):  # a name that is too long, a folder that may not be listed
        if out.exists() and not out.is_dir():
            raise UsageError(f"`--out` should be a folder, got the file '{out}'. Name another one.")
        if not (out / SETTINGS).is_file():
            check_free(out)
            return None
    before, facts_before = recorded(out)
    with reading(out, SETTINGS):
        settings = resolved(settings, int(facts_before["train_images"]))
        steps = int(before.pop("steps"))
    now = asdict(settings)
    more = now.pop("steps") - steps
    different = _differences(now, before, flag) + _differences(facts or facts_before, facts_before)
    if different:
        raise UsageError(
            "`--out` should be a new folder or that of a run with the same settings, source and "
            f"data, got '{out}', where {'; '.join(different)}. Name another one, or repeat that "
            "run's command."
        )
    if more < 0 or (more > 0 and settings.schedule != "constant"):
        raise UsageError(
            f"`--steps` should be {steps} as in '{out}', or more with --schedule constant, got "
            f"{settings.steps} with {settings.schedule}. Name another --out: the learning rates of "
            "other schedules depend on the number of steps."
        )
    return more


def _differences(
    now: dict[str, Any], before: dict[str, Any], named: Callable[[str], str] = str
) -> list[str]:
    was, now = (json.loads(json.dumps(x)) for x in (before, now))  # tuples are read as lists
    return [
        f"{named(name)} was {json.dumps(was.get(name)):.60} and is {json.dumps(now.get(name)):.60}"
        for name in differing(was, now)
        if name not in FREE
    ]


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return the sorted names of which two records have different values."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


@contextmanager
def claimed(
    out: Path, settings: Settings, facts: dict[str, Any], told: Mapping[str, Fact] | None = None
) -> Iterator[None]:
    """Keep the folder for a run, recorded by the main process and compared by the others.

    Raises a `UsageError` that names what differs from a run in it. One that gets more steps is no
    longer finished.
    """
    with locked(out) if processes.is_main() else nullcontext():
        if processes.is_main() and check(out, settings, facts) != 0:
            with writing(out / SUMMARY):
                (out / SUMMARY).unlink(missing_ok=True)
            origins = {name: fact.origin for name, fact in (told or {}).items()}
            record = {"settings": asdict(settings), "found": facts, "origins": origins}
            write_json(out / SETTINGS, record)
        processes.barrier("the folder is claimed")
        if check(out, settings, facts) is None:
            raise UsageError(
                f"`--out` should be one folder that all processes see, got '{out}', where this "
                f"process finds no {SETTINGS}. Name a folder of a shared file system."
            )
        yield


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep the folder, made if it does not exist, for this process until it ends or is killed."""
    with writing(out / SETTINGS):
        out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"`--out` should be a folder that no other process is running in, got '{out}'. "
                "Wait for that process to end, or stop it."
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(folder)


def check_free(out: Path, but: Collection[str] = ()) -> None:
    """Raise a `UsageError` if the folder holds anything but files of these names."""
    names = sorted(os.listdir(out)) if out.is_dir() else []
    names = [name for name in names if not name.startswith(_pretrained.PARTIAL) and name not in but]
    if names:
        raise UsageError(
            f"`--out` should be a new folder or that of this run, got '{out}', which holds "
            f"{listed(names, 3)}. Name another one."
        )
