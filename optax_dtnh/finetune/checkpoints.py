"""Checkpoints that survive a kill at any moment and are never restored damaged.

Orbax writes, commits and removes them. It restores a flipped byte without a word, so
`checksums.json` is added to a checkpoint once it is committed, and compared before anything is
read. A checkpoint without that file is a save that did not end.

With several processes, all of them call these functions, and the main process alone computes
checksums. Their number and the shardings may differ from those of the run that saved.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from optax_dtnh.finetune import processes, run_folder
from optax_dtnh.finetune.errors import UsageError

KEPT = 2
SAVE_S, SAVE_SHARE = 60, 0.05  # between checkpoints; the largest share of time that they may take
CHECKSUMS = "checksums.json"
SHOWN = 5  # leaves in an error


def due(took: float) -> float:
    """Return the time of the next checkpoint by time, after one whose saving took some seconds."""
    return time.monotonic() + max(SAVE_S, took / SAVE_SHARE)


@contextmanager
def opened(folder: Path) -> Iterator[ocp.CheckpointManager]:
    """Yield the checkpoints of a folder, which is made; what a killed save has left is removed."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEPT,
        step_prefix="step",
        cleanup_tmp_directories=True,
        enable_async_checkpointing=False,
        lightweight_initialize=True,
        num_deletion_threads=1,
    )
    with run_folder.writing(folder):
        manager = ocp.CheckpointManager(folder.resolve(), options=options)
    with manager:
        yield manager


def save(manager: ocp.CheckpointManager, step: int, state: Any) -> float:
    """Write a checkpoint of a tree of arrays, whole or not at all, and keep the two newest.

    Return the seconds that it took, once the arrays were computed.
    """
    path, leaves = _path(manager, step), jax.tree.leaves(jax.block_until_ready(state))
    begun = time.monotonic()
    needed = sum(x.nbytes + 1024 for x in leaves) + 4096  # with what Orbax writes beside them
    with run_folder.writing(path), _system_errors():
        if shutil.disk_usage(path.parent).free < needed:  # Orbax's threads would print tracebacks
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Without `force`, nothing is saved that is older than another checkpoint.
        manager.save(step, args=ocp.args.StandardSave(leaves), force=True)
        if processes.is_main():
            content = {"leaves": _described(state), "files": _checksums(path)}
            run_folder.write_json(path / CHECKSUMS, content)
    return time.monotonic() - begun


def restore_latest(manager: ocp.CheckpointManager, like: Any) -> Any | None:
    """Return the state of the newest whole checkpoint, None if there is none.

    A damaged checkpoint is skipped with a message, and removed once an older one is restored.
    `like` is the tree to restore: `jax.ShapeDtypeStruct` with shardings.
    """
    problems: dict[int, str | None] = {}
    restored = None
    for step in sorted(manager.all_steps(), reverse=True):
        problem = _problem(_path(manager, step), like) if processes.is_main() else None
        if not processes.anywhere(problem is not None):
            restored = manager.restore(step, args=ocp.args.StandardRestore(jax.tree.leaves(like)))
            break
        problems[step] = problem
    _report(manager, {step: text for step, text in problems.items() if text}, restored is None)
    for step in problems:
        manager.delete(step)
    return None if restored is None else jax.tree.unflatten(jax.tree.structure(like), restored)


def _report(manager: ocp.CheckpointManager, damaged: dict[int, str], none_left: bool) -> None:
    texts = [f"step {step} ({text})" for step, text in damaged.items()]
    if texts and none_left:
        raise UsageError(
            f"`--out` should have a checkpoint that can be restored, got none in "
            f"'{manager.directory}': {', '.join(texts)}. Install the jax, optax and flax of the "
            "run, or delete that folder to train from the start."
        )
    for text in texts:
        print(f"Skipped the damaged checkpoint of {text}.", file=sys.stderr)


def _path(manager: ocp.CheckpointManager, step: int) -> Path:
    return Path(manager.directory) / f"step_{step}"


def _described(tree: Any) -> dict[str, str]:
    """Return dtype and shape of every leaf by its path."""
    pairs = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in pairs}


def _checksums(path: Path) -> dict[str, str]:
    """Return the SHA-256 of every file by its name."""
    found = {}
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        found[file.relative_to(path).as_posix()] = digest
    return found


def _problem(path: Path, like: Any) -> str | None:
    """Return what is wrong with a checkpoint, None if nothing is."""
    if not (path / CHECKSUMS).is_file():
        return ""  # of a save that did not end
    try:
        content = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
        found, leaves = _checksums(path), dict(content["leaves"])
        del found[CHECKSUMS]
        changed = run_folder.differing(content["files"], found)
    except (OSError, ValueError, TypeError, KeyError):
        return f"{CHECKSUMS} is damaged"
    if changed:
        return f"{changed[0]} has changed"
    if list(leaves.items()) == list((asked := _described(like)).items()):
        return None
    names = run_folder.differing(leaves, asked)
    texts = [f"{leaves.get(n)} at {n} instead of {asked.get(n)}" for n in names[:SHOWN]]
    return "; ".join(texts) or "the leaves in another order"


@contextmanager
def _system_errors() -> Iterator[None]:
    """Raise what the system has told TensorStore, which Orbax wraps in a ValueError, as OSError."""
    try:
        yield
    except ValueError as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
