"""Checkpoints that survive a kill at any moment and are never restored damaged.

A checkpoint is a directory `step-00000012` (`step-00000012.1` where that step was there) of

- `state/`, the arrays as Orbax writes them, numbered in the order of the tree: names that Orbax
  would make of the tree can coincide (`a.b` and `b` in `a`), and then it restores wrong values;
- `data-<process>.json`, each process's position in its data;
- `manifest-<process>.json`, the checksums, written last. A directory that lacks one of these is a
  save that did not end: it is passed over, and removed at the next save.

With several processes, all of them call these functions and see the same folder.
"""

import json
import re
import shutil
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax

from optax_dtnh.finetune import array_files, leaves, manifest, processes
from optax_dtnh.finetune.interrupts import held_back

KEPT = 2
_NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?")


class Restored(NamedTuple):
    """What `save` was given."""

    step: int
    state: Any
    data_state: dict[str, Any]


def save(folder: Path, step: int, state: Any, data_state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all, and keep the two newest whole ones.

    Args:
      folder: Of the checkpoints of one run, made if it is not there.
      step: How far the run is; a checkpoint of the same step is replaced once this one is whole.
      state: A tree of `jax.Array`, random keys and shardings of any kind included.
      data_state: What JSON gives back as it was; each process keeps and gets its own.

    Raises:
      OSError: There is no room, or the folder cannot be written. Whatever was whole still is.
    """
    arrays, text = leaves.of_state(state), _json_of(data_state)
    folder = folder.resolve()  # Orbax reports a relative path one save too late.
    path = _free_name(folder, step)
    facts = {"step": int(step), "leaves": leaves.described(state)}
    # Of several processes one may be gone, and the wait for it without an end.
    with held_back() if jax.process_count() == 1 else nullcontext():
        try:
            _write(path, arrays, text, facts)
        except OSError as error:
            _remove([path])
            raise OSError(_refusal(folder, step, str(error))) from None
    _prune(folder, path)


def restore_latest(folder: Path, like: Any) -> Restored | None:
    """Return the newest whole checkpoint, None if there is none; warn of each damaged one skipped.

    Args:
      folder: As given to `save`.
      like: The tree to restore: arrays, or `jax.ShapeDtypeStruct` with a sharding. Structure,
        dtypes and shardings come back as given; weak types come back strong, and every array
        committed to its sharding.

    Raises:
      ValueError: Every checkpoint is damaged, or the newest whole one has other leaves than `like`.
    """
    targets = leaves.of_like(like)
    damaged: list[str] = []
    for path in _finished(folder.resolve()):
        problem = _problem(path)
        if problem is None:
            for text in damaged:
                warnings.warn(f"Skipped the damaged checkpoint {text}.", stacklevel=2)
            return _read(path, targets, like)
        damaged.append(f"{path.name} ({problem})")
    if damaged:
        raise ValueError(
            f"`folder` should hold a whole checkpoint, got only damaged ones in {folder}: "
            f"{', '.join(damaged)}. Nothing was overwritten. Delete the folder to start anew."
        )
    return None


def _write(path: Path, arrays: dict[str, jax.Array], text: str, facts: dict[str, Any]) -> None:
    process = jax.process_index()
    processes.everywhere(lambda: array_files.reserve(path, arrays))
    processes.everywhere(lambda: manifest.write_atomically(path / f"data-{process}.json", text))
    array_files.write(path / "state", arrays)
    processes.meet(f"{path.name} is written")
    processes.everywhere(lambda: manifest.write(path, facts))


def _read(path: Path, targets: dict[str, jax.ShapeDtypeStruct], like: Any) -> Restored:
    facts = manifest.facts(path)
    _check_fit(path, leaves.difference(facts["leaves"], leaves.described(like)))
    arrays = array_files.read(path / "state", targets)
    state = jax.tree.unflatten(jax.tree.structure(like), [arrays[number] for number in targets])
    data = json.loads((path / f"data-{jax.process_index()}.json").read_text())
    return Restored(facts["step"], state, data)


def _prune(folder: Path, new: Path) -> None:
    kept = [new]
    others = [path for path in _finished(folder) if path != new]
    for path in others:
        if len(kept) < KEPT and path.stem != new.stem and _problem(path) is None:
            kept.append(path)
    _remove([path for path in others if path not in kept])
    processes.meet(f"{new.name} is saved")


def _attempts(folder: Path) -> list[Path]:
    """Return the directories of checkpoints, finished or not, the newest first."""
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.glob("step-*")]
    found = [(int(name[1]), int(name[2] or 0), path) for name, path in matches if name]
    return [path for *_, path in sorted(found, reverse=True)]


def _finished(folder: Path) -> list[Path]:
    return [path for path in _attempts(folder) if manifest.is_finished(path)]


def _free_name(folder: Path, step: int) -> Path:
    """Remove what killed saves left, and return a path that no checkpoint has."""
    if step < 0:
        raise ValueError(f"`step` should be 0 or more, got {step}. Count the steps done.")
    _remove([path for path in _attempts(folder) if not manifest.is_finished(path)])
    processes.meet(f"unfinished checkpoints before {step} are removed")
    name = f"step-{step:08d}"
    numbers = [int(path.suffix[1:] or 0) for path in _attempts(folder) if path.stem == name]
    processes.meet(f"a name for {step} is chosen")
    return folder / (f"{name}.{max(numbers) + 1}" if numbers else name)


def _remove(paths: list[Path]) -> None:
    """Remove checkpoints, manifests first: killed in between, they are unfinished, not damaged."""
    if jax.process_index() != 0:
        return
    for path in paths:
        for file in path.glob("manifest-*.json"):
            with suppress(OSError):
                file.unlink()
        shutil.rmtree(path, ignore_errors=True)


def _check_fit(path: Path, difference: str | None) -> None:
    if difference:
        raise ValueError(
            f"`like` should have the leaves of the checkpoint {path}, got {difference}. "
            "Use the settings of the run that wrote it, or another folder."
        )
    written_by = manifest.process_count(path)
    if written_by != jax.process_count():
        raise ValueError(
            f"`folder` should be of a run of {jax.process_count()} processes, got {path} of "
            f"{written_by}. Run as many: each has its own position in the data."
        )


def _json_of(data_state: dict[str, Any]) -> str:
    try:
        text = json.dumps(data_state, allow_nan=False)
    except (TypeError, ValueError):
        text = "null"
    if not isinstance(data_state, dict) or json.loads(text) != data_state:
        raise TypeError(
            f"`data_state` should be a dict that JSON gives back as it was, got {data_state!r}. "
            "Use strings for keys, lists for tuples, and no bytes, arrays or NaN."
        )
    return text


def _refusal(folder: Path, step: int, reason: str) -> str:
    whole = next((path.name for path in _finished(folder) if not manifest.problem(path)), None)
    before = f"{whole} is whole and is where the run goes on" if whole else "there is none before"
    return (
        f"`folder` should take the checkpoint of step {step}, got {reason!r} from {folder}. "
        f"Make room or choose another folder; {before}."
    )


def _problem(path: Path) -> str | None:
    share = slice(jax.process_index(), None, jax.process_count())
    problem = manifest.problem(path, share)
    if processes.anywhere(problem is not None):
        return problem or "another process found it damaged"
    return None
