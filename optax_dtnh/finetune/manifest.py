"""Checksums of a directory, by which one wrong byte is found before anything is read.

Each process writes `manifest-<process>.json` once the directory is complete: the size and SHA-256
of its share of the sorted list of files, and facts that are the same in every manifest. A directory
is whole when the manifests of all processes are there, agree, and every file is as they say.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax


def write(directory: Path, facts: dict[str, Any]) -> None:
    """Write this process's manifest, after every file of every process is in place."""
    names, process, processes = _files(directory), jax.process_index(), jax.process_count()
    body = {
        "processes": processes,
        "names": _digest("\n".join(names).encode()),
        "facts": facts,
        "files": {name: _described(directory / name) for name in names[process::processes]},
    }
    write_atomically(directory / f"manifest-{process}.json", _text(body))


def facts(directory: Path) -> dict[str, Any]:
    """Return the facts of a directory without a problem."""
    return json.loads((directory / "manifest-0.json").read_text())["facts"]


def process_count(directory: Path) -> int:
    """Return how many processes wrote a directory, 0 where no manifest says it."""
    read = (_read(path) for path in _manifests(directory))
    return next((manifest["processes"] for manifest in read if manifest), 0)


def is_finished(directory: Path) -> bool:
    """Return whether every process has written its manifest, legible or not."""
    return len(_manifests(directory)) >= max(process_count(directory), 1)


def problem(directory: Path, share: slice = slice(None)) -> str | None:
    """Return what is wrong with a finished directory or a share of its files, None if nothing."""
    read = {path.name: _read(path) for path in _manifests(directory)}
    illegible = [name for name, manifest in read.items() if manifest is None]
    if illegible:
        return f"{illegible[0]} is damaged"
    manifests = [manifest for manifest in read.values() if manifest]
    expected = dict(sorted(pair for manifest in manifests for pair in manifest["files"].items()))
    names = _digest("\n".join(expected).encode())
    common = {"processes": len(manifests), "names": names, "facts": manifests[0]["facts"]}
    if any(common != {key: manifest[key] for key in common} for manifest in manifests):
        return "its manifests disagree"
    known = list(expected.items())[share]
    return next(filter(None, (_difference(directory, name, *was) for name, was in known)), None)


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is either there with the whole text, on the disk, or not there."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _manifests(directory: Path) -> list[Path]:
    return sorted(directory.glob("manifest-*.json"))


def _files(directory: Path) -> list[str]:
    paths = (path for path in directory.rglob("*") if path.is_file())
    names = (path.relative_to(directory).as_posix() for path in paths)
    # Other processes may be writing their manifests, first under the name that has a dot.
    return sorted(name for name in names if not name.startswith(("manifest-", ".manifest-")))


def _text(body: dict[str, Any]) -> str:
    checksum = _digest(json.dumps(body).encode())
    return json.dumps(body | {"sha256": checksum}, indent=1) + "\n"


def _read(path: Path) -> dict[str, Any] | None:
    # Written anew, the content has to give the same bytes: so no byte of a manifest can change.
    try:
        text = path.read_bytes().decode()
        body = json.loads(text)
        del body["sha256"]
        return body if _text(body) == text else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _difference(directory: Path, name: str, size: int, checksum: str) -> str | None:
    try:
        found_size, found = _described(directory / name)
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    if found_size != size:
        return f"{name} has {found_size} bytes instead of {size}"
    return None if found == checksum else f"{name} has changed"


def _described(path: Path) -> list[Any]:
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        return [file.tell(), checksum]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
