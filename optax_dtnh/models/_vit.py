"""Vision transformers that equal torch's, with the tokens after every block."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from optax_dtnh.models._layers import LayerNorm, check_images

# Heads of the published sizes, by the width of tokens and of the layer inside a block. No shape in
# a checkpoint tells them. From timm's vision_transformer.py and torchvision's.
PUBLISHED_HEADS = {
    **{(64 * n, 256 * n): n for n in (3, 4, 5, 6, 8, 10, 12, 16)},
    (896, 2304): 14,
    **{(1152, 4304): 16, (1280, 5120): 16, (1408, 6144): 16, (1664, 8192): 16},
}
TANH_GELU = partial(nnx.gelu, approximate=True)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {  # as transformers and timm name them
    **dict.fromkeys(("gelu", "gelu_python"), partial(nnx.gelu, approximate=False)),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_tanh"), TANH_GELU),
    "quick_gelu": lambda x: x * nnx.sigmoid(1.702 * x),  # in CLIP's networks
    "relu": nnx.relu,
    **dict.fromkeys(("silu", "swish"), nnx.silu),
}


class Attention(nnx.Module):
    """Self-attention, its three projections in one matrix as in torch."""

    def __init__(self, width: int, heads: int, **options):
        self.qkv = nnx.Linear(width, 3 * width, **options)
        self.out = nnx.Linear(width, width, **options)
        self.heads = heads

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        by_head = (*x.shape[:2], self.heads, -1)
        mixed = jax.nn.dot_product_attention(*(a.reshape(by_head) for a in (q, k, v)))
        return self.out(mixed.reshape(x.shape))


class Block(nnx.Module):
    """Attention and a two-layer network, each on normalized tokens and added to them."""

    def __init__(
        self, width: int, heads: int, hidden: int, activation: str, epsilon: float, **options
    ):
        self.norm1 = LayerNorm(width, epsilon, rngs=options["rngs"])
        self.attention = Attention(width, heads, **options)
        self.norm2 = LayerNorm(width, epsilon, rngs=options["rngs"])
        self.linear1 = nnx.Linear(width, hidden, **options)
        self.linear2 = nnx.Linear(hidden, width, **options)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x))
        hidden = ACTIVATIONS[self.activation](self.linear1(self.norm2(x)))
        return x + self.linear2(hidden)


class ViT(nnx.Module):
    """A vision transformer that classifies by its class token.

    `model(images) -> (logits, features)`. `features` is a dict of the tokens [batch, 1 + patches,
    width] after each block, `block1` to `block12`, the class token first. It has no dropout and no
    running statistics, so training and evaluation mode are the same.

    `vit_tiny`, `vit_small`, `vit_base`, `vit_large` and `vit_huge` have widths of 192, 384, 768,
    1024 and 1280, the last two 24 and 32 blocks.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from optax_dtnh.models import vit_tiny
      >>> model = nnx.eval_shape(lambda: vit_tiny(classes=10, rngs=nnx.Rngs(0)))
      >>> run = lambda model, images: model(images)
      >>> logits, features = nnx.eval_shape(run, model, jnp.zeros((2, 224, 224, 3)))
      >>> logits.shape, features["block12"].shape
      ((2, 10), (2, 197, 192))

    Args:
      width: Width of the tokens.
      blocks: Number of blocks.
      heads: Number of attention heads, a divisor of `width`. None is that of the published size;
        for other sizes, heads are 64 wide.
      hidden: Width of the layer inside a block; None is `4 * width`.
      activation: [Activation](models.md#what-no-tensor-tells) inside a block, as transformers and
        timm name it: `gelu` (exact), `gelu_new`, `quick_gelu`, `relu`, `silu` or alike.
      image_size: Height and width of the images, a multiple of `patch_size`.
      patch_size: Height and width of a patch.
      classes: Number of logits. With 0 there is no head: the logits are the normalized class token.
      epsilon: Epsilon of the layer normalization: 1e-6 in timm, 1e-12 in Hugging Face.
      dtype: As in `ResNet`.
      rngs: Random keys for the initial parameters.

    Source: Dosovitskiy et al., [An Image is Worth 16x16 Words](https://arxiv.org/abs/2010.11929),
    2020; timm's models for the order of the layers.
    """

    def __init__(
        self,
        width: int,
        *,
        blocks: int = 12,
        heads: int | None = None,
        hidden: int | None = None,
        activation: str = "gelu",
        image_size: int = 224,
        patch_size: int = 16,
        classes: int = 1000,
        epsilon: float = 1e-6,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        hidden = 4 * width if hidden is None else hidden
        heads = _heads(heads, width, hidden)
        check_image_size(image_size, patch_size)
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"`activation` should be one of {', '.join(ACTIVATIONS)}, got {activation!r:.60}. "
                "Take a network with one of these."
            )
        options = {"dtype": dtype, "rngs": rngs}
        patch = (patch_size, patch_size)
        self.patches = nnx.Conv(3, width, patch, strides=patch, padding="VALID", **options)
        init = nnx.initializers.normal(0.02)
        self.cls_token = nnx.Param(init(rngs.params(), (1, 1, width)))
        tokens = 1 + (image_size // patch_size) ** 2
        self.positions = nnx.Param(init(rngs.params(), (1, tokens, width)))
        block = partial(Block, width, heads, hidden, activation, epsilon, **options)
        self.blocks = nnx.List(block() for _ in range(blocks))
        self.norm = LayerNorm(width, epsilon, rngs=rngs)
        self.head = nnx.data(nnx.Linear(width, classes, **options) if classes else None)
        self.pooled_width, self.heads, self.hidden = width, heads, hidden
        self.activation, self.epsilon = activation, epsilon
        self.image_size, self.dtype = image_size, dtype

    def __call__(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(images, self.image_size)
        x = self.patches(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        first = jnp.broadcast_to(self.cls_token[...].astype(x.dtype), (x.shape[0], 1, x.shape[-1]))
        x = jnp.concatenate([first, x], axis=1) + self.positions[...].astype(x.dtype)
        features = {}
        for i, block in enumerate(self.blocks):
            x = features[f"block{i + 1}"] = block(x)
        pooled = self.norm(x[:, 0])
        return self.head(pooled) if self.head else pooled, features


def _heads(heads: int | None, width: int, hidden: int) -> int:
    """Return the number of heads; None is that of a published size, else of heads 64 wide."""
    usual = 0 if width % 64 else width // 64
    found = PUBLISHED_HEADS.get((width, hidden), usual) if heads is None else heads
    if found < 1 or width % found:
        raise ValueError(
            f"`heads` should be a divisor of the width {width}, got {heads}. Pass the number of "
            "attention heads that the network's authors state."
        )
    return found


def check_image_size(image_size: int, patch_size: int) -> None:
    """Raise unless the images have a whole number of patches along each side, and not too many."""
    most = 1024 * patch_size  # a million positions
    if image_size % patch_size or not patch_size <= image_size <= most:
        below = max(min(image_size, most - 1) // patch_size, 1) * patch_size
        raise ValueError(
            f"`image_size` should be a multiple of {patch_size}, the size of a patch, up to "
            f"{most}, got {image_size}. Pass {below} or {below + patch_size}."
        )


def resized(positions: jax.Array, side: int) -> jax.Array:
    """Return positions [1, 1 + side**2, width] for another resolution, in float32, as timm does.

    That of the class token stays; the grid is interpolated by Keys' cubic, a = -0.5, antialiased.
    """
    first, grid = positions[:, :1], positions[0, 1:]
    old, width = math.isqrt(len(grid)), grid.shape[-1]
    grid, shape = grid.reshape(old, old, width), (side, side, width)
    grid = jax.image.resize(grid, shape, "cubic", antialias=True)
    return jnp.concatenate([first, grid.reshape(1, -1, width)], axis=1)


vit_tiny = partial(ViT, 192)
vit_small = partial(ViT, 384)
vit_base = partial(ViT, 768)
vit_large = partial(ViT, 1024, blocks=24)
vit_huge = partial(ViT, 1280, blocks=32, patch_size=14)
