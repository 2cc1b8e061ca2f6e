"""Shapes of the parameter trees beyond ResNet-50's: of transformers, up to a billion."""

from benchmarks.cost.trees import Shapes


def vit_base() -> Shapes:
    """Return the 152 shapes of a ViT-B/16 for 224 px and 1000 classes, 86.6 million parameters."""
    patches = {"patches/kernel": (16, 16, 3, 768), "patches/bias": (768,)}
    tokens = {"class_token": (1, 1, 768), "positions": (1, 197, 768)}
    return (
        patches | tokens | transformer(768, 12) | {"head/kernel": (768, 1000), "head/bias": (1000,)}
    )


def transformer(width: int, blocks: int, words: int = 0) -> Shapes:
    """Return the shapes of transformer blocks, and of `words` embeddings if there are any."""
    shapes: Shapes = {"words": (words, width)} if words else {}
    for i in range(blocks):
        shapes |= _block(f"block{i:02d}", width)
    return shapes | _norm("norm", width)


def _block(name: str, width: int) -> Shapes:
    layers = {"qkv": (width, 3 * width), "out": (width, width)}
    layers |= {"mlp1": (width, 4 * width), "mlp2": (4 * width, width)}
    shapes = _norm(f"{name}/norm1", width) | _norm(f"{name}/norm2", width)
    for layer, shape in layers.items():
        shapes |= {f"{name}/{layer}/kernel": shape, f"{name}/{layer}/bias": shape[1:]}
    return shapes


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


# Words and width as in the smallest GPT-2; and a billion.
BIG = {"transformer, 124M": (768, 12, 50257), "transformer, 1.0B": (2048, 19, 32000)}
