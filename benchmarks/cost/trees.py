"""The parameter trees that an update is measured on, as shapes, and arrays of these shapes."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp

Shapes = dict[str, tuple[int, ...]]
Abstract = dict[str, jax.ShapeDtypeStruct]

# Biases, a square and an odd matrix, a small convolution kernel: of the sizes where XLA:CPU behaves
# differently (a dimension above 32 or not, 4,096 elements or fewer).
SMALL = ((16, 16), (64,), (48, 40), (64, 64))


def resnet50() -> Shapes:
    """Return the 161 shapes of torchvision's ResNet-50, 25.6 million parameters, kernels HWIO."""
    shapes = {"stem/kernel": (7, 7, 3, 64), **_norm("stem", 64)}
    channels = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            shapes |= _bottleneck(f"stage{stage}/block{block}", channels, width, block == 0)
            channels = 4 * width
    return shapes | {"head/kernel": (channels, 1000), "head/bias": (1000,)}


def vit_base() -> Shapes:
    """Return the 152 shapes of a ViT-B/16 for 224 px and 1000 classes, 86.6 million parameters."""
    patches = {"patches/kernel": (16, 16, 3, 768), "patches/bias": (768,)}
    tokens = {"class_token": (1, 1, 768), "positions": (1, 197, 768)}
    head = {"head/kernel": (768, 1000), "head/bias": (1000,)}
    return patches | tokens | transformer(768, 12) | head


def transformer(width: int, blocks: int, words: int = 0) -> Shapes:
    """Return the shapes of transformer blocks, and of `words` embeddings if there are any."""
    shapes: Shapes = {"words": (words, width)} if words else {}
    for i in range(blocks):
        shapes |= _block(f"block{i:02d}", width)
    return shapes | _norm("norm", width)


def small_leaves(count: int) -> Shapes:
    """Return `count` leaves of at most 4,096 elements, in four shapes."""
    return {f"leaf{i:03d}": SMALL[i % len(SMALL)] for i in range(count)}


def as_params(shapes: Shapes) -> Abstract:
    """Return abstract float32 parameters, enough to lower and compile for."""
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def size_in_bytes(params: Any) -> int:
    """Return the bytes of a tree, N of one of the parameters' size."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(params))


def filled(params: Abstract, seed: int) -> dict[str, jax.Array]:
    """Return normal arrays in place of shapes, made on the device."""
    keys = jax.random.split(jax.random.key(seed), len(params))
    items = zip(keys, params.items(), strict=True)
    return {name: normal(key, x.shape, x.dtype) for key, (name, x) in items}


# Once for every shape: the draws of a whole tree in one program take long to compile.
normal = jax.jit(jax.random.normal, static_argnums=(1, 2))


def _bottleneck(name: str, channels: int, width: int, downsample: bool) -> Shapes:
    sizes = ((1, channels, width), (3, width, width), (1, width, 4 * width))
    shapes: Shapes = {}
    for i, (k, n_in, n_out) in enumerate(sizes):
        shapes |= {f"{name}/conv{i}/kernel": (k, k, n_in, n_out), **_norm(f"{name}/conv{i}", n_out)}
    if downsample:
        shapes[f"{name}/down/kernel"] = (1, 1, channels, 4 * width)
        shapes |= _norm(f"{name}/down", 4 * width)
    return shapes


def _block(name: str, width: int) -> Shapes:
    layers = {"qkv": (width, 3 * width), "out": (width, width)}
    layers |= {"mlp1": (width, 4 * width), "mlp2": (4 * width, width)}
    shapes = _norm(f"{name}/norm1", width) | _norm(f"{name}/norm2", width)
    for layer, shape in layers.items():
        shapes |= {f"{name}/{layer}/kernel": shape, f"{name}/{layer}/bias": shape[1:]}
    return shapes


def _norm(name: str, channels: int) -> Shapes:
    return dict(zip((f"{name}/scale", f"{name}/bias"), itertools.repeat((channels,))))
