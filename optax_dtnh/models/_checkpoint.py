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
SAVE_AGAIN = (
    "Fetch it again, in a clone by `git lfs pull`, and see that it is no HTML page; or save "
    "`model.state_dict()` again, in float32."
)


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
    _check_file(path)
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise CheckpointError(
            f"`source` should end in {', '.join(READERS)}, got {path}. "
            "Convert it to safetensors, or rename it if it is such a file."
        )
    if sha256 is not None:
        _check_digest(path, sha256)
    return read(path)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(
            f"`source` should be an existing file, got {path}. "
            "Check the path, or name a repository of the hub as in `hf:owner/name`."
        )
    if not path.is_file():
        kind = "folder" if path.is_dir() else "pipe or device"
        raise CheckpointError(
            f"`source` should be a file of weights, got the {kind} {path}. Name a file."
        )


def _check_digest(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != str(sha256).lower():
        raise CheckpointError(
            f"`sha256` should be the digest of {path}, which is {digest}, got {sha256!r:.80}. "
            "Fetch the file again, or check where the digest comes from."
        )


def _safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="numpy") as file:
            return Checkpoint(path, file.get_tensors(), file.metadata() or {})
    except (SafetensorError, OSError, AttributeError) as error:  # the last is of a dtype
        raise CheckpointError(
            f"`source` should be a whole safetensors file of dtypes that numpy has, got {path} "
            f"({error}). {SAVE_AGAIN}"
        ) from error


# --- torch


def _torch(path: Path) -> Checkpoint:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CheckpointError(
            f"torch is not installed, so {path} cannot be read. Convert it where torch is: "
            f"`{CONVERSION}`. Take its entry `state_dict` or `model` first if it has one."
        ) from error
    try:
        content = _unwrapped(torch.load(path, map_location="cpu", weights_only=True))
        return Checkpoint(path, {str(n): _array(torch, x) for n, x in content.items()}, {})
    # One of a dozen classes. torch's text stays in the cause: it advises to let the file run code.
    except Exception as error:
        raise CheckpointError(
            f"`source` should map names to dense tensors of numpy's dtypes, got {path} "
            f"({type(error).__name__}). It is damaged, has other entries than tensors, or holds "
            f"Python objects, which are not loaded because that can run code. {SAVE_AGAIN}"
        ) from error


def _unwrapped(content: Any) -> Any:
    for key in 3 * ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    return content


def _array(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach().resolve_conj()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    # torch cannot convert bfloat16 to numpy: pass the bits, and name their dtype again.
    return tensor.view(torch.int16).numpy().view("bfloat16")


READERS = {".safetensors": _safetensors, **dict.fromkeys((".pth", ".pt", ".bin"), _torch)}
