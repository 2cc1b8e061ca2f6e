"""A file of weights: all tensors as numpy arrays, or one error that names the file."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

# Copies, since safetensors refuses views and shared memory.
CONVERSION = (
    "safetensors.torch.save_file({k: v.contiguous().clone() for k, v in torch.load('model.pth', "
    "map_location='cpu', weights_only=True).items()}, 'model.safetensors')"
)
# By its first bytes: what a file is instead of a checkpoint, and what to do.
OTHER_FILES = {
    (b"<!doctype", b"<html"): "an HTML page. Fetch the file itself.",
    (b"version https://git-lfs",): "a pointer of git LFS. Run `git lfs pull`.",
}


class CheckpointError(ValueError):
    """A checkpoint, or what a file beside it says, is refused; the message says why."""


class Checkpoint(NamedTuple):
    """The content of a file of weights."""

    path: Path
    tensors: dict[str, np.ndarray]  # in the dtypes of the file
    metadata: dict[str, str]  # in the header of a safetensors file


def open_checkpoint(path: str | os.PathLike[str], sha256: str | None = None) -> Checkpoint:
    """Return what a `.safetensors` file holds, or with torch installed a `.pth`, `.pt` or `.bin`.

    Of the latter only tensors are loaded, never code; a `state_dict` or `model` entry is unwrapped,
    also one inside the other. The digest `sha256` is compared before anything is parsed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"`source` should be an existing file, got {path}. "
            "Check the path, or name a repository of the hub as in `hf:owner/name`."
        )
    read = READERS.get(path.suffix.lower())
    if read is None or not path.is_file():
        raise CheckpointError(
            f"`source` should be a file that ends in {', '.join(READERS)}, got {path}. "
            "Name a file of weights; convert it to safetensors, or rename it if it is one."
        )
    if sha256 is not None:
        _check_digest(path, sha256)
    try:
        return read(path)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # one of a dozen classes
        raise CheckpointError(
            f"`source` should map names to dense tensors of dtypes that numpy has, got {path}, "
            f"which {_cause(path, error)}"
        ) from error


def _check_digest(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != str(sha256).lower():
        raise CheckpointError(
            f"`sha256` should be the digest of {path}, which is {digest}, got {sha256!r:.80}. "
            "Fetch the file again, or check where the digest comes from."
        )


def _cause(path: Path, error: Exception) -> str:
    """Return why a file cannot be read, without torch's text: it advises to let it run code."""
    with path.open("rb") as file:
        start = file.read(99).lstrip().lower()
    for beginnings, what in OTHER_FILES.items():
        if start.startswith(beginnings):
            return f"is {what}"
    if any(x in str(error).lower() for x in ("unsupported global", "torchscript archive")):
        return "holds Python objects, which could run code. Save `model.state_dict()` instead."
    if isinstance(error, AttributeError | TypeError | NotImplementedError):
        return "holds something else. Save `model.state_dict()`, in float32."
    text = f": {error}" if isinstance(error, SafetensorError) else ""
    return f"is cut off or damaged ({type(error).__name__}{text}). Fetch it again."


def _safetensors(path: Path) -> Checkpoint:
    with safe_open(path, framework="numpy") as file:
        return Checkpoint(path, file.get_tensors(), file.metadata() or {})


def _torch(path: Path) -> Checkpoint:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CheckpointError(
            f"torch is not installed, so {path} cannot be read. Convert it where torch is: "
            f"`{CONVERSION}`. Take its entry `state_dict` or `model` first if it has one."
        ) from error
    content = _unwrapped(torch.load(path, map_location="cpu", weights_only=True))
    return Checkpoint(path, {str(n): _array(torch, x) for n, x in content.items()}, {})


def _unwrapped(content: Any) -> Any:
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return _unwrapped(content[key])
    return content


def _array(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach().resolve_conj()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    # torch cannot convert bfloat16 to numpy: pass the bits, and name their dtype again.
    return tensor.view(torch.int16).numpy().view("bfloat16")


READERS = {".safetensors": _safetensors, **dict.fromkeys((".pth", ".pt", ".bin"), _torch)}
