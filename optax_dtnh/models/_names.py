"""What torch's checkpoints call the tensors of our models, and how these lie in memory.

A kernel is `[height, width,] in, out` here and `out, in [, height, width]` there; others lie alike.

A row has the path of our module, and the prefix of the tensors in each library. `{s}`, `{b}` and
`{i}` are numbers, `{s0}` and `{i0}` one less: some count from 0 where we count from 1. `{qkv}` are
three tensors, which are concatenated along the first axis.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optax_dtnh.models._checkpoint import Checkpoint, CheckpointError
from optax_dtnh.models._efficientnet import EfficientNetLite0
from optax_dtnh.models._resnet import ResNet
from optax_dtnh.models._vit import ViT

Model = ResNet | ViT | EfficientNetLite0
EXACT = ("float16", "bfloat16", "float32")  # what float32 holds without rounding
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
LEAVES |= {"mean": "running_mean", "var": "running_var"}
QKV = ("query", "key", "value")


class Scheme(NamedTuple):
    """A naming scheme."""

    name: str  # what a user calls it
    network: type[Model]
    known_by: str  # a tensor that every checkpoint of the scheme has, and no other scheme's
    rows: dict[str, str]  # from the paths of our modules to prefixes
    excused: frozenset[str] = frozenset()  # tensors that may be there and are not used
    epsilon: float = 1e-6  # of the layer normalization where nothing says it
    stem: str = ""  # what the names of a backbone begin with if there is a head, and only then
    images: Mapping[str, Any] = {}  # how the network wants them where nothing says it


def names_of(scheme: Scheme, path: str) -> tuple[str, ...]:
    """Return the scheme's names of the tensors that make up our leaf at the dotted `path`."""
    module, _, leaf = path.rpartition(".")
    module, leaf = (module, LEAVES[leaf]) if leaf in LEAVES else (path, "")
    for ours, prefix in scheme.rows.items():
        pattern = re.sub(r"{(\w)}", r"(?P<\1>\\d+)", ours.replace(".", r"\."))
        if match := re.fullmatch(pattern, module):
            numbers = {key: int(value) for key, value in match.groupdict().items()}
            numbers |= {f"{key}0": value - 1 for key, value in numbers.items()}
            parts = QKV if "{qkv}" in prefix else ("",)
            return tuple(prefix.format(qkv=part, **numbers) + leaf for part in parts)
    raise LookupError(f"no row of {scheme.name} names {path}")


def _by_library(rows: list[Any], block: tuple[str, ...], inside: list[Any]) -> list[dict[str, str]]:
    """Return a dict for each library, from our names to theirs, in a block behind its prefix."""
    rows += [tuple(map("".join, zip(block, row, strict=True))) for row in inside]
    ours, *libraries = zip(*rows, strict=True)
    return [dict(zip(ours, theirs, strict=True)) for theirs in libraries]


TV, HF = _by_library(
    [
        ("stem.conv", "conv1.", "resnet.embedder.embedder.convolution."),
        ("stem.norm", "bn1.", "resnet.embedder.embedder.normalization."),
        ("head", "fc.", "classifier.1."),
    ],
    ("stage{s}.{b}.", "layer{s}.{b}.", "resnet.encoder.stages.{s0}.layers.{b}."),
    [
        ("conv{i}", "conv{i}.", "layer.{i0}.convolution."),
        ("norm{i}", "bn{i}.", "layer.{i0}.normalization."),
        ("shortcut.conv", "downsample.0.", "shortcut.convolution."),
        ("shortcut.norm", "downsample.1.", "shortcut.normalization."),
    ],
)
STAGE = "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight"
TORCHVISION_RESNET = Scheme("torchvision or timm ResNet", ResNet, "layer1.0.conv1.weight", TV)
HUGGING_FACE_RESNET = Scheme("Hugging Face ResNet", ResNet, STAGE, HF, stem="resnet.")

EMBEDDED = "vit.embeddings."
TIMM, TV, HF = _by_library(
    [
        ("patches", "patch_embed.proj.", "conv_proj.", EMBEDDED + "patch_embeddings.projection."),
        ("cls_token", "cls_token", "class_token", EMBEDDED + "cls_token"),
        ("positions", "pos_embed", "encoder.pos_embedding", EMBEDDED + "position_embeddings"),
        ("norm", "norm.", "encoder.ln.", "vit.layernorm."),
        ("head", "head.", "heads.head.", "classifier."),
    ],
    ("blocks.{b}.", "blocks.{b}.", "encoder.layers.encoder_layer_{b}.", "vit.encoder.layer.{b}."),
    [
        ("norm1", "norm1.", "ln_1.", "layernorm_before."),
        ("norm2", "norm2.", "ln_2.", "layernorm_after."),
        ("attention.qkv", "attn.qkv.", "self_attention.in_proj_", "attention.attention.{qkv}."),
        ("attention.out", "attn.proj.", "self_attention.out_proj.", "attention.output.dense."),
        ("linear1", "mlp.fc1.", "mlp.0.", "intermediate.dense."),
        ("linear2", "mlp.fc2.", "mlp.3.", "output.dense."),
    ],
)
INSIDE = "encoder.layers.encoder_layer_{b}.mlp."
OLDER = TV | {f"blocks.{{b}}.linear{i}": f"{INSIDE}linear_{i}." for i in (1, 2)}
TIMM_VIT = Scheme("timm ViT", ViT, "patch_embed.proj.weight", TIMM)
TORCHVISION_VIT = Scheme("torchvision ViT", ViT, INSIDE.format(b=0) + "0.weight", TV)
LINEAR = INSIDE.format(b=0) + "linear_1.weight"
OLDER_TORCHVISION_VIT = Scheme("torchvision ViT", ViT, LINEAR, OLDER)
POOLER = frozenset({"vit.pooler.dense.weight", "vit.pooler.dense.bias"})
TOKEN = EMBEDDED + "cls_token"
HUGGING_FACE_VIT = Scheme("Hugging Face ViT", ViT, TOKEN, HF, POOLER, 1e-12, "vit.")

LITE = {"stem.conv": "_conv_stem.", "stem.norm": "_bn0.", "head": "_fc."}
LITE |= {"last.conv": "_conv_head.", "last.norm": "_bn1."}
for _i, _part in enumerate(("expand", "depthwise", "project")):
    LITE[f"blocks.{{b}}.{_part}.conv"] = f"_blocks.{{b}}._{_part}_conv."
    LITE[f"blocks.{{b}}.{_part}.norm"] = f"_blocks.{{b}}._bn{_i}."
STEM = "_conv_stem.weight"
# The pixels less 127, divided by 128.
GRAY = dict(image_size=224, mean=3 * (127 / 255,), std=3 * (128 / 255,), interpolation="bicubic")
LITE0 = Scheme("PyTorch EfficientNet-Lite0", EfficientNetLite0, STEM, LITE, images=GRAY)

# The first of a network is that which is saved.
SCHEMES = (TORCHVISION_RESNET, HUGGING_FACE_RESNET, TIMM_VIT, TORCHVISION_VIT, HUGGING_FACE_VIT)
SCHEMES += (LITE0, OLDER_TORCHVISION_VIT)


# --- which network a file holds


class Recognized(NamedTuple):
    """A file, and its naming scheme as it has it."""

    file: Checkpoint
    scheme: Scheme
    prefix: str  # what stands before every name, such as `module.` or nothing
    stem: str  # the scheme's, or nothing where the file leaves it out

    def names_of(self, path: str) -> tuple[str, ...]:
        """Return the names in the file of the tensors that make up our leaf at the dotted path."""
        return tuple(map(self.in_file, names_of(self.scheme, path)))

    def shape_of(self, path: str) -> tuple[int, ...] | None:
        """Return the shape, in torch's layout, of the first tensor for our leaf, None if empty."""
        tensor = self.file.tensors.get(self.names_of(path)[0])
        return None if tensor is None or 0 in tensor.shape else tensor.shape

    def in_file(self, name: str) -> str:
        """Return the name in the file of what the scheme calls `name`."""
        core = name.removeprefix(self.scheme.stem)
        return self.prefix + (name if core == name else self.stem + core)


def recognized(file: Checkpoint, ignore: Collection[str] = ()) -> Recognized:
    """Return the only network of the file, apart from the tensors in `ignore`."""
    names = sorted(set(file.tensors) - ignored(file.tensors, ignore))
    tried = ((name, _at(name, file, scheme)) for scheme in SCHEMES for name in names)
    found = {name: network for name, network in tried if network is not None}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise CheckpointError(
            f"`source` should hold one network, got {file.path} with {len(found)}: "
            f"{listed(found)}. Save the tensors of one prefix alone, or name those of the others "
            "in `ignore`."
        )
    raise CheckpointError(
        f"`source` should be a checkpoint of a {', '.join(s.name for s in SCHEMES[:-1])}, got "
        f"{file.path} with {len(file.tensors)} tensors: {listed(file.tensors)}. Pass one "
        f"that has one of {listed(s.known_by for s in SCHEMES)}, or convert the names."
    )


def _at(name: str, file: Checkpoint, scheme: Scheme) -> Recognized | None:
    """Return the network of the scheme that the file has if the tensor `name` tells of it."""
    core = scheme.known_by.removeprefix(scheme.stem)
    if not f".{name}".endswith(f".{core}"):
        return None
    before = name.removesuffix(core)
    stem = scheme.stem if f".{before}".endswith(f".{scheme.stem}") else ""
    return Recognized(file, scheme, before.removesuffix(stem), stem)


def ignored(names: Collection[str], ignore: Collection[str]) -> set[str]:
    """Return those of the names that are in `ignore`, or match a pattern in it such as `a.*`."""
    patterns = [p for p in ignore if "*" in p]
    return {n for n in names if n in ignore or any(fnmatchcase(n, p) for p in patterns)}


def listed(names: Iterable[str], most: int = 20) -> str:
    """Return the names, sorted, and how many more there are than `most`."""
    names = sorted(names)
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join(names[:most] + more)


# --- how tensors lie


def dotted(path: tuple[Any, ...]) -> str:
    """Return the path as one string with dots."""
    return ".".join(map(str, path))


def their_layout(path: tuple[Any, ...], array: np.ndarray) -> np.ndarray:
    """Return a view of our leaf as their tensor."""
    kernel = path[-1] == "kernel"
    return array.transpose(-1, -2, *range(array.ndim - 2)) if kernel else array


def their_shape(path: tuple[Any, ...], shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """Return the shape of each of the `parts` tensors that our leaf is made of."""
    first, *others = their_layout(path, np.broadcast_to(0, shape)).shape
    return (first // parts, *others)


def our_layout(path: tuple[Any, ...], parts: list[np.ndarray]) -> jax.Array:
    """Return our leaf, in float32, from their tensors."""
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if path[-1] == "kernel":
        array = array.transpose(*range(2, array.ndim), 1, 0)
    return jnp.asarray(array, jnp.float32)
