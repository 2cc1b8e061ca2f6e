"""The activations that published transformers use, by the names of transformers and timm."""

from collections.abc import Callable
from functools import partial

import jax
from flax import nnx


def quick_gelu(x: jax.Array) -> jax.Array:
    """Return `x sigmoid(1.702 x)`, the approximation in CLIP's networks."""
    return x * nnx.sigmoid(1.702 * x)


EXACT_GELU = partial(nnx.gelu, approximate=False)
TANH_GELU = partial(nnx.gelu, approximate=True)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    **dict.fromkeys(("gelu", "gelu_python"), EXACT_GELU),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_tanh"), TANH_GELU),
    "quick_gelu": quick_gelu,
    "relu": nnx.relu,
    **dict.fromkeys(("silu", "swish"), nnx.silu),
}
