"""The parameter trees that an update is measured on: shapes alone, nothing is allocated."""

import itertools
import math

import jax
import jax.numpy as jnp

Shapes = dict[str, tuple[int, ...]]

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


def small_leaves(count: int) -> Shapes:
    """Return `count` leaves of at most 4,096 elements, in four shapes."""
    return {f"leaf{i:03d}": SMALL[i % len(SMALL)] for i in range(count)}


def as_params(shapes: Shapes) -> dict[str, jax.ShapeDtypeStruct]:
    """Return abstract float32 parameters, enough to lower and compile for."""
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def size_in_bytes(params: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Return N, the bytes of one tree of the parameters' size."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in params.values())


def _bottleneck(name: str, channels: int, width: int, downsample: bool) -> Shapes:
    sizes = ((1, channels, width), (3, width, width), (1, width, 4 * width))
    shapes: Shapes = {}
    for i, (k, n_in, n_out) in enumerate(sizes):
        shapes |= {f"{name}/conv{i}/kernel": (k, k, n_in, n_out), **_norm(f"{name}/conv{i}", n_out)}
    if downsample:
        shapes[f"{name}/down/kernel"] = (1, 1, channels, 4 * width)
        shapes |= _norm(f"{name}/down", 4 * width)
    return shapes


def _norm(name: str, channels: int) -> Shapes:
    return dict(zip((f"{name}/scale", f"{name}/bias"), itertools.repeat((channels,))))
