"""From a model to a checkpoint that torch's own code loads."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import save

from optax_dtnh.models import _names as names
from optax_dtnh.models._agreement import METADATA
from optax_dtnh.models._checkpoint import CheckpointError
from optax_dtnh.models._vit import ViT

PARTIAL = ".partial-"  # prefix of a file that is being written


def save_pretrained(model: names.Model, path: str | os.PathLike[str]) -> None:
    """Write a model as a safetensors file for `load_pretrained` and for torch's own code.

    A ResNet gets the names of torchvision and timm, a ViT those of timm, an EfficientNetLite0 its
    own, in float32. Loading it again gives the same bits. The file is whole, or not there at all.

    Examples:
      >>> import tempfile
      >>> from flax import nnx
      >>> from safetensors import safe_open
      >>> from optax_dtnh.models import resnet18, save_pretrained
      >>> path = tempfile.mkdtemp() + "/resnet18.safetensors"
      >>> save_pretrained(resnet18(width=8, classes=3, rngs=nnx.Rngs(0)), path)
      >>> with safe_open(path, framework="numpy") as file:
      ...     file.get_slice("layer4.0.downsample.0.weight").get_shape()
      [64, 32, 1, 1]

    Args:
      model: A `ResNet`, `ViT` or `EfficientNetLite0`.
      path: Where to write or replace a file, in an existing folder, ending in `.safetensors`.

    Raises:
      TypeError: `model` is none, or has parameters that float32 does not hold, such as float64.
      CheckpointError: `path` has another ending.
      OSError: The file cannot be written.
    """
    path = Path(path)
    scheme = next((x for x in names.SCHEMES if isinstance(model, x.network)), None)
    if scheme is None:
        raise TypeError(
            "`model` should be a ResNet, a ViT or an EfficientNetLite0, got "
            f"{type(model).__name__}. Pass what `load_pretrained` or `resnet50` returns."
        )
    if path.suffix != ".safetensors":
        raise CheckpointError(f"`path` should end in .safetensors, got {path.name}. Rename it.")
    tensors = {
        names.names_of(scheme, names.dotted(at))[0]: _tensor(at, x[...])
        for at, x in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    }
    metadata = {"format": "pt"}
    if isinstance(model, ViT):
        metadata |= {key: str(getattr(model, name)) for key, name in METADATA.items()}
    try:
        # Not `save_file`, which lets nobody else read the file.
        atomically(path, lambda partial: partial.write_bytes(save(tensors, metadata)))
    except (OSError, ValueError) as error:
        raise OSError(
            f"{str(path)!r} cannot be written ({error}). Check that its folder exists, that you "
            "may write there, that there is space, and that it is no folder."
        ) from error


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` write another file, and move it to `path` once it is whole."""
    partial = path.with_name(PARTIAL + path.name)
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _tensor(path: tuple[Any, ...], array: jax.Array) -> np.ndarray:
    if str(array.dtype) not in names.EXACT:
        raise TypeError(
            f"`model` should have parameters that float32 holds exactly, got {array.dtype} at "
            f"{names.dotted(path)}. Round them yourself, as with `jax.tree.map`."
        )
    tensor = names.their_layout(path, np.asarray(array, np.float32))
    return np.ascontiguousarray(tensor)  # a transposed view would be written untransposed
