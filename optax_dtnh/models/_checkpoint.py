"""A file of weights: names, shapes and dtypes before the data, and one error for a bad file."""

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from optax_dtnh.models._errors import CheckpointError

# From the format's dtypes to numpy's. numpy knows bfloat16 because jax imports ml_dtypes. Left out
# are the 8-bit and 4-bit floats: safetensors cannot give them to numpy.
DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
    **{"BOOL": "bool", "C64": "complex64"},
}
# Copies, since safetensors refuses views and shared memory.
CONVERSION = (
    "safetensors.torch.save_file({k: v.contiguous().clone() for k, v in torch.load('model.pth', "
    "map_location='cpu', weights_only=True).items()}, 'model.safetensors')"
)
SHARD = r"-of-0*([2-9]|[1-9]\d+)\.\w+$|\.index\.json$"
SAVE_AGAIN = "Fetch it again, or save `model.state_dict()` again."
MORE_THAN_TENSORS = (
    "It is damaged, or holds Python objects, which are not loaded because that can run code. "
    + SAVE_AGAIN
)


class Checkpoint(NamedTuple):
    """A file of weights with a valid header.

    Attributes:
      path: The file.
      tensors: From names to shapes and dtypes as stored.
      metadata: The free text in the header of a safetensors file; otherwise empty.
      read: Returns all tensors as numpy arrays, in the dtypes of `tensors`.
    """

    path: Path
    tensors: dict[str, jax.ShapeDtypeStruct]
    metadata: dict[str, str]
    read: Callable[[], dict[str, np.ndarray]]


def open_checkpoint(path: str | os.PathLike[str], sha256: str | None = None) -> Checkpoint:
    """Return what the file holds, without reading its data if the format allows it.

    Args:
      path: A `.safetensors` file, or a `.pth`, `.pt` or `.bin` file of torch, which needs torch.
        Of the latter only tensors are loaded, never code; a `state_dict` or `model` entry is
        unwrapped, also one inside the other.
      sha256: The hexadecimal digest that the file should have, compared before anything is parsed.
        The formats themselves do not detect a flipped bit.

    Raises:
      FileNotFoundError: There is no such file.
      CheckpointError: It is no file of weights, a damaged one, or another one than `sha256` says.
    """
    path = Path(path)
    _check_file(path)
    if re.search(SHARD, path.name):
        raise CheckpointError(
            f"`source` should be one file of weights, got {path}, one of several shards or their "
            "index. Load all of them and save them as one file."
        )
    open_file = OPENERS.get(path.suffix.lower())
    if open_file is None:
        raise CheckpointError(
            f"`source` should end in {', '.join(OPENERS)}, got {path}. "
            "Convert it to safetensors, or rename it if it is such a file."
        )
    if sha256 is not None:
        _check_digest(path, sha256)
    return open_file(path)


def check_finite(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise if the file at `path` holds NaN or infinity, naming the tensors."""
    names = sorted(name for name, array in arrays.items() if not np.isfinite(array).all())
    if names:
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise CheckpointError(
            f"`source` should hold finite weights, got NaN or infinity in {', '.join(names[:10])}"
            f"{more} of {path}. Take a checkpoint from before the training diverged."
        )


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(
            f"`source` should be an existing file, got {path}. "
            "Check the path, or name a repository of the hub as in `hf:owner/name`."
        )
    if not path.is_file():
        kind = "folder" if path.is_dir() else "pipe, socket or device"
        raise CheckpointError(
            f"`source` should be a file, got the {kind} {path}. "
            "Name a file of weights, such as `model.safetensors` inside a folder."
        )
    with path.open("rb") as file:
        start = file.read(256)
    if not start:
        raise CheckpointError(
            f"`source` should hold weights, got the empty file {path}. {SAVE_AGAIN}"
        )
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"`source` should hold weights, got {path}, a git-LFS pointer to them. "
            "Fetch the real file, as with `git lfs pull`."
        )
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html)", start, re.IGNORECASE):
        raise CheckpointError(
            f"`source` should hold weights, got {path}, an HTML page. "
            "Fetch the file itself: this is a web page about it, an error or a login page."
        )


def _check_digest(path: Path, sha256: str) -> None:
    if not re.fullmatch("[0-9a-fA-F]{64}", str(sha256)):
        raise CheckpointError(
            f"`sha256` should be 64 hexadecimal digits, got {sha256!r:.80}. "
            "Pass what `sha256sum` prints for the file."
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256.lower():
        raise CheckpointError(
            f"`sha256` should be the digest of {path}, which is {digest}, got {sha256}. "
            "Fetch the file again, or check where the digest comes from."
        )


def _spec(path: Path, name: str, shape: Any, dtype: str | None, stored: str):
    if dtype is None:
        raise CheckpointError(
            f"`source` should hold dense tensors of {', '.join(DTYPES.values())}, got {stored} as "
            f"{name} in {path}. Save it as a dense float32 tensor."
        )
    return jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))


# --- safetensors


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"`source` should be a whole safetensors file, got {path} ({error}). {SAVE_AGAIN}"
        ) from error


def _open_safetensors(path: Path) -> Checkpoint:
    with _naming(path), safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        stored = {name: (x.get_shape(), x.get_dtype()) for name, x in slices.items()}
        metadata = file.metadata() or {}
    tensors = {
        name: _spec(path, name, shape, DTYPES.get(dtype), dtype)
        for name, (shape, dtype) in stored.items()
    }
    return Checkpoint(path, tensors, metadata, functools.partial(_read_safetensors, path))


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with _naming(path), safe_open(path, framework="numpy") as file:
        return file.get_tensors()


# --- torch


def _open_torch(path: Path) -> Checkpoint:
    torch = _import_torch(path)
    content = _unwrapped(_load_torch(torch, path))
    _check_flat(torch, path, content)
    tensors = {}
    for name, tensor in content.items():
        dtype, layout = (str(x).removeprefix("torch.") for x in (tensor.dtype, tensor.layout))
        dense = layout == "strided" and tensor.device.type == "cpu" and dtype in DTYPES.values()
        stored = f"{dtype} ({layout}, {tensor.device})"
        tensors[name] = _spec(path, name, tensor.shape, dtype if dense else None, stored)
    return Checkpoint(path, tensors, {}, functools.partial(_to_numpy, torch, content))


def _import_torch(path: Path) -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CheckpointError(
            f"torch is not installed, so {path} cannot be read. Convert it where torch is: "
            f"`{CONVERSION}`. Take its entry `state_dict` or `model` first if it has one."
        ) from error
    return torch


def _load_torch(torch: Any, path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file raises one of a dozen classes. torch's own text stays in the cause, because it
    # advises to let the file run code.
    except Exception as error:
        raise CheckpointError(
            f"`source` should be a torch file of tensors alone, got {path} "
            f"({type(error).__name__}). {MORE_THAN_TENSORS}"
        ) from error


def _unwrapped(content: Any) -> Any:
    for key in 3 * ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    return content


def _check_flat(torch: Any, path: Path, content: Any) -> None:
    got = f"a {type(content).__name__}"
    if isinstance(content, Mapping):
        sound = {k for k, v in content.items() if isinstance(k, str) and torch.is_tensor(v)}
        other = [k for k in content if k not in sound]
        if not other:
            return
        got = f"a {type(content[other[0]]).__name__} as {other[0]!r:.60}"
    raise CheckpointError(
        f"`source` should map names to tensors, got {got} in {path}. "
        "Save `model.state_dict()` alone, or under the key 'state_dict' or 'model'."
    )


def _to_numpy(torch: Any, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: _array(torch, tensor.detach().resolve_conj()) for name, tensor in tensors.items()}


def _array(torch: Any, tensor: Any) -> np.ndarray:
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    # torch cannot convert bfloat16 to numpy: pass the bits, and name their dtype again.
    return tensor.view(torch.int16).numpy().view("bfloat16")


OPENERS = {".safetensors": _open_safetensors, **dict.fromkeys((".pth", ".pt", ".bin"), _open_torch)}
