"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"  # prefix of a file that is being written


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` write another file, and move it to `path` once it is whole.

    Raises:
      OSError: That cannot be done. Nothing of the file is left.
    """
    partial = path.with_name(PARTIAL + path.name)
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
