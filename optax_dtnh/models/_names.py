"""What checkpoints call the tensors of our models: one rename table per naming scheme.

A row is a pattern for the path of our module and the prefix of their tensors. `(?P<s>...)` is a
number, and `{s}` puts it into the prefix, `{s0}` one less: some count from 0 where we count from 1.
Several prefixes are concatenated along the first axis.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from optax_dtnh.models._positions import antialiased, clamped
from optax_dtnh.models._resnet import ResNet
from optax_dtnh.models._vit import ViT

Row = tuple[str, ...]
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class Scheme(NamedTuple):
    """A naming scheme.

    Attributes:
      name: What a user calls it.
      network: The class of our model.
      known_by: A tensor that every checkpoint of the scheme has, and no other scheme's.
      rows: The rename table.
      excused: Tensors that may be there and are not used.
      resize: How the scheme's library interpolates positions, from them and the new side.
      epsilon: Epsilon of the layer normalization where nothing says it.
      stem: What the names of a backbone begin with if there is a head. Without one, it is left out.
    """

    name: str
    network: type[ResNet] | type[ViT]
    known_by: str
    rows: tuple[Row, ...]
    excused: frozenset[str] = frozenset()
    resize: Callable[[np.ndarray, int], np.ndarray] = antialiased
    epsilon: float = 1e-6
    stem: str = ""


def names_of(scheme: Scheme, path: str) -> tuple[str, ...]:
    """Return the scheme's names of the tensors that make up our leaf at the dotted `path`."""
    module, _, leaf = path.rpartition(".")
    module, leaf = (module, LEAVES[leaf]) if leaf in LEAVES else (path, "")
    for pattern, *prefixes in scheme.rows:
        if match := re.fullmatch(pattern, module):
            counts = {key: int(value) for key, value in match.groupdict().items()}
            from_zero = {f"{key}0": value - 1 for key, value in counts.items()}
            return tuple(prefix.format(**counts, **from_zero) + leaf for prefix in prefixes)
    raise LookupError(f"no row of {scheme.name} names {path}")


BLOCK = r"stage(?P<s>\d)\.(?P<b>\d+)"
TORCHVISION_RESNET = Scheme(
    name="torchvision or timm ResNet",
    network=ResNet,
    known_by="layer1.0.conv1.weight",
    rows=(
        (r"stem\.conv", "conv1."),
        (r"stem\.norm", "bn1."),
        (BLOCK + r"\.conv(?P<i>\d)", "layer{s}.{b}.conv{i}."),
        (BLOCK + r"\.norm(?P<i>\d)", "layer{s}.{b}.bn{i}."),
        (BLOCK + r"\.shortcut\.conv", "layer{s}.{b}.downsample.0."),
        (BLOCK + r"\.shortcut\.norm", "layer{s}.{b}.downsample.1."),
        (r"head", "fc."),
    ),
)
HF_BLOCK = "resnet.encoder.stages.{s0}.layers.{b}."
HUGGING_FACE_RESNET = Scheme(
    name="Hugging Face ResNet",
    network=ResNet,
    known_by="resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
    rows=(
        (r"stem\.conv", "resnet.embedder.embedder.convolution."),
        (r"stem\.norm", "resnet.embedder.embedder.normalization."),
        (BLOCK + r"\.conv(?P<i>\d)", HF_BLOCK + "layer.{i0}.convolution."),
        (BLOCK + r"\.norm(?P<i>\d)", HF_BLOCK + "layer.{i0}.normalization."),
        (BLOCK + r"\.shortcut\.conv", HF_BLOCK + "shortcut.convolution."),
        (BLOCK + r"\.shortcut\.norm", HF_BLOCK + "shortcut.normalization."),
        (r"head", "classifier.1."),
    ),
    stem="resnet.",
)

VIT_BLOCK = r"blocks\.(?P<b>\d+)"
TIMM_VIT = Scheme(
    name="timm ViT",
    network=ViT,
    known_by="patch_embed.proj.weight",
    rows=(
        (r"patches", "patch_embed.proj."),
        (r"cls_token", "cls_token"),
        (r"positions", "pos_embed"),
        (VIT_BLOCK + r"\.norm(?P<i>\d)", "blocks.{b}.norm{i}."),
        (VIT_BLOCK + r"\.attention\.qkv", "blocks.{b}.attn.qkv."),
        (VIT_BLOCK + r"\.attention\.out", "blocks.{b}.attn.proj."),
        (VIT_BLOCK + r"\.linear(?P<i>\d)", "blocks.{b}.mlp.fc{i}."),
        (r"norm", "norm."),
        (r"head", "head."),
    ),
)
TV_BLOCK = "encoder.layers.encoder_layer_{b}."
TORCHVISION_VIT = Scheme(
    name="torchvision ViT",
    network=ViT,
    known_by="encoder.layers.encoder_layer_0.mlp.0.weight",
    rows=(
        (r"patches", "conv_proj."),
        (r"cls_token", "class_token"),
        (r"positions", "encoder.pos_embedding"),
        (VIT_BLOCK + r"\.norm(?P<i>\d)", TV_BLOCK + "ln_{i}."),
        (VIT_BLOCK + r"\.attention\.qkv", TV_BLOCK + "self_attention.in_proj_"),
        (VIT_BLOCK + r"\.attention\.out", TV_BLOCK + "self_attention.out_proj."),
        (VIT_BLOCK + r"\.linear1", TV_BLOCK + "mlp.0."),
        (VIT_BLOCK + r"\.linear2", TV_BLOCK + "mlp.3."),
        (r"norm", "encoder.ln."),
        (r"head", "heads.head."),
    ),
)
OLDER_TORCHVISION_VIT = TORCHVISION_VIT._replace(
    known_by="encoder.layers.encoder_layer_0.mlp.linear_1.weight",
    rows=tuple(
        (ours, theirs.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."))
        for ours, theirs in TORCHVISION_VIT.rows
    ),
)
HF_VIT_BLOCK = "vit.encoder.layer.{b}."
HF_ATTENTION = HF_VIT_BLOCK + "attention.attention."
HUGGING_FACE_VIT = Scheme(
    name="Hugging Face ViT",
    network=ViT,
    known_by="vit.embeddings.cls_token",
    rows=(
        (r"patches", "vit.embeddings.patch_embeddings.projection."),
        (r"cls_token", "vit.embeddings.cls_token"),
        (r"positions", "vit.embeddings.position_embeddings"),
        (VIT_BLOCK + r"\.norm1", HF_VIT_BLOCK + "layernorm_before."),
        (VIT_BLOCK + r"\.norm2", HF_VIT_BLOCK + "layernorm_after."),
        (
            VIT_BLOCK + r"\.attention\.qkv",
            HF_ATTENTION + "query.",
            HF_ATTENTION + "key.",
            HF_ATTENTION + "value.",
        ),
        (VIT_BLOCK + r"\.attention\.out", HF_VIT_BLOCK + "attention.output.dense."),
        (VIT_BLOCK + r"\.linear1", HF_VIT_BLOCK + "intermediate.dense."),
        (VIT_BLOCK + r"\.linear2", HF_VIT_BLOCK + "output.dense."),
        (r"norm", "vit.layernorm."),
        (r"head", "classifier."),
    ),
    excused=frozenset({"vit.pooler.dense.weight", "vit.pooler.dense.bias"}),
    resize=clamped,
    epsilon=1e-12,
    stem="vit.",
)

SCHEMES = (
    TORCHVISION_RESNET,
    HUGGING_FACE_RESNET,
    TIMM_VIT,
    TORCHVISION_VIT,
    HUGGING_FACE_VIT,
    OLDER_TORCHVISION_VIT,
)
