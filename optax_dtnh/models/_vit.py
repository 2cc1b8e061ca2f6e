"""Vision transformers that equal torch's, with the tokens after every block."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from optax_dtnh.models._layers import LayerNorm, check_images, result

HEAD_WIDTH = 64  # of every published size; a checkpoint's shapes do not tell it


class Attention(nnx.Module):
    """Self-attention, its three projections in one matrix as in torch."""

    def __init__(self, width: int, **options):
        self.qkv = nnx.Linear(width, 3 * width, **options)
        self.out = nnx.Linear(width, width, **options)
        self.heads = width // HEAD_WIDTH

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        by_head = (*x.shape[:2], self.heads, HEAD_WIDTH)
        mixed = jax.nn.dot_product_attention(*(a.reshape(by_head) for a in (q, k, v)))
        return self.out(mixed.reshape(x.shape))


class Block(nnx.Module):
    """Attention and a two-layer network, each on normalized tokens and added to them."""

    def __init__(self, width: int, epsilon: float, **options):
        self.norm1 = LayerNorm(width, epsilon, rngs=options["rngs"])
        self.attention = Attention(width, **options)
        self.norm2 = LayerNorm(width, epsilon, rngs=options["rngs"])
        self.linear1 = nnx.Linear(width, 4 * width, **options)
        self.linear2 = nnx.Linear(4 * width, width, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x))
        hidden = nnx.gelu(self.linear1(self.norm2(x)), approximate=False)
        return x + self.linear2(hidden)


class ViT(nnx.Module):
    """A vision transformer that classifies by its class token.

    `model(images) -> (logits, features)`. `features` is a dict of the tokens [batch, 1 + patches,
    width] after each block, `block1` to `block12`, the class token first. It has no dropout and no
    running statistics, so training and evaluation mode are the same.

    `vit_tiny`, `vit_small` and `vit_base` are this class with widths of 192, 384 and 768.

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
      width: Width of the tokens, a multiple of 64, the width of an attention head.
      blocks: Number of blocks.
      image_size: Height and width of the images, a multiple of `patch_size`.
      patch_size: Height and width of a patch.
      classes: Number of logits.
      epsilon: Epsilon of the layer normalization: 1e-6 in torchvision and timm, 1e-12 in Hugging
        Face.
      dtype: Dtype to compute in, such as `jnp.bfloat16`; None takes that of parameters and images.
        Parameters are float32.
      rngs: Random keys for the initial parameters.

    Raises:
      ValueError: `width` is not a multiple of 64, or `image_size` not of `patch_size`.

    Source: Dosovitskiy et al., [An Image is Worth 16x16 Words](https://arxiv.org/abs/2010.11929),
    2020; timm's models for the order of the layers.
    """

    def __init__(
        self,
        width: int,
        *,
        blocks: int = 12,
        image_size: int = 224,
        patch_size: int = 16,
        classes: int = 1000,
        epsilon: float = 1e-6,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        _check_multiple("width", width, HEAD_WIDTH)
        _check_multiple("image_size", image_size, patch_size)
        options = {"dtype": dtype, "rngs": rngs}
        patch = (patch_size, patch_size)
        self.patches = nnx.Conv(3, width, patch, strides=patch, padding="VALID", **options)
        init = nnx.initializers.normal(0.02)
        self.cls_token = nnx.Param(init(rngs.params(), (1, 1, width)))
        tokens = 1 + (image_size // patch_size) ** 2
        self.positions = nnx.Param(init(rngs.params(), (1, tokens, width)))
        self.blocks = nnx.List(Block(width, epsilon, **options) for _ in range(blocks))
        self.norm = LayerNorm(width, epsilon, rngs=rngs)
        self.head = nnx.Linear(width, classes, **options)
        self.image_size = image_size
        self.epsilon = epsilon
        self.frozen = False

    def __call__(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(images, self.image_size)
        x = self.patches(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        first = jnp.broadcast_to(self.cls_token[...].astype(x.dtype), (x.shape[0], 1, x.shape[-1]))
        x = jnp.concatenate([first, x], axis=1) + self.positions[...].astype(x.dtype)
        features = {}
        for i, block in enumerate(self.blocks):
            x = features[f"block{i + 1}"] = block(x)
        return result(self.frozen, self.head(self.norm(x[:, 0])), features)

    def set_view(self, frozen: bool | None = None) -> None:
        """Set whether gradients stop here. `nnx.view` calls it."""
        self.frozen = self.frozen if frozen is None else frozen


def _check_multiple(name: str, value: int, of: int) -> None:
    if value < of or value % of:
        raise ValueError(
            f"`{name}` should be a multiple of {of}, got {value}. Pass one, such as {3 * of}."
        )


vit_tiny = functools.partial(ViT, 192)
vit_small = functools.partial(ViT, 384)
vit_base = functools.partial(ViT, 768)
