"""Source networks as safetensors files under torch's names, loaded strictly in both directions.

A linear layer is `fc1.weight` of shape `[out, in]` and `fc1.bias` in the file, and a `kernel` of
shape `[in, out]` and a `bias` in the parameters.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.digits.network import Params

TORCH_NAMES = {"kernel": "weight", "bias": "bias"}


def save(path: Path, params: Params) -> None:
    """Write the parameters, transposing every kernel."""
    # A transposed view would be written in memory order, that is untransposed.
    save_file(
        {name: np.ascontiguousarray(np.asarray(x).T) for name, x in _by_name(params).items()}, path
    )


def load(path: Path, like: Params) -> Params:
    """Return the parameters in `path`, with the names, shapes and dtypes of `like`.

    Args:
      path: A safetensors file.
      like: Parameters, or their shapes and dtypes as from `jax.eval_shape`.

    Raises:
      ValueError: A tensor is missing, unexpected, or of another shape or dtype.
    """
    tensors, expected = load_file(path), _by_name(like)
    _check_same(
        path,
        {name: _described(x.shape, x.dtype) for name, x in tensors.items()},
        {name: _described(x.shape[::-1], x.dtype) for name, x in expected.items()},
    )
    return {
        layer: {leaf: jnp.asarray(tensors[_torch_name(layer, leaf)].T) for leaf in leaves}
        for layer, leaves in like.items()
    }


def _by_name(params: Params) -> dict[str, Any]:
    return {
        _torch_name(layer, leaf): x
        for layer, leaves in params.items()
        for leaf, x in leaves.items()
    }


def _torch_name(layer: str, leaf: str) -> str:
    return f"{layer}.{TORCH_NAMES[leaf]}"


def _described(shape: Sequence[int], dtype: Any) -> str:
    return f"{np.dtype(dtype)}{list(shape)}"


def _check_same(path: Path, found: dict[str, str], expected: dict[str, str]) -> None:
    wrong = [
        f"{name} is {found[name]} instead of {expected[name]}"
        for name in sorted(found.keys() & expected.keys())
        if found[name] != expected[name]
    ]
    missing, unexpected = sorted(expected.keys() - found), sorted(found.keys() - expected)
    if missing or unexpected or wrong:
        raise ValueError(
            f"`{path.name}` should hold the tensors of this network, got missing {missing}, "
            f"unexpected {unexpected}, wrong {wrong}. Rename or convert them in the file: "
            "nothing is skipped or filled in."
        )
