"""The sizes that tensors tell, and whether tensors and configuration are those of a network."""

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from flax import nnx

from optax_dtnh.models._checkpoint import CheckpointError
from optax_dtnh.models._efficientnet import EfficientNetLite0
from optax_dtnh.models._facts import kind_of
from optax_dtnh.models._fields import NETWORK, Fact, Facts, facts_of, read_fields
from optax_dtnh.models._names import EXACT, Model, Recognized, dotted, ignored, listed, their_shape
from optax_dtnh.models._resnet import Basic, Bottleneck, ResNet
from optax_dtnh.models._vit import PUBLISHED_HEADS, ViT

# Facts that only some networks have. They are None, which no file says, for the others.
SIZES = dict.fromkeys("hidden blocks patch_size depths hidden_sizes block".split())
VERSION_1_5 = {"downsample_in_first_stage": False, "downsample_in_bottleneck": False}
# Facts that no size tells, but that hold for each of our networks.
OURS: dict[type[Model], dict[str, Any]] = {
    ViT: {"pool": "token", "qkv_bias": True},
    ResNet: {"pool": "avg", "activation": "relu", "heads": None, **VERSION_1_5},
    EfficientNetLite0: {"pool": "avg", "activation": "relu6", "heads": None},
}
# What our own files store in their metadata, because no tensor tells it.
METADATA = {"attention_heads": "heads", "activation": "activation", "layer_norm_epsilon": "epsilon"}


def sizes_of(found: Recognized) -> dict[str, Any]:
    """Return the sizes of the network, by the names of its arguments.

    A second tensor tells a size if the first is missing, so that the error lists nothing else.
    """
    read = {ResNet: _resnet_sizes, ViT: _vit_sizes}.get(found.scheme.network, lambda _: {})
    return {**read(found), "classes": _first_axis(found, "head.bias", "head.kernel", usual=0)}


def _resnet_sizes(found: Recognized) -> dict[str, Any]:
    stages = [f"stage{i}" for i in (1, 2, 3, 4)]
    third = found.shape_of("stage1.0.conv3.kernel") or found.shape_of("stage1.0.norm3.scale")
    return {
        "blocks": [_count(found, stage, "conv1.kernel", "conv2.kernel") for stage in stages],
        "block": Bottleneck if third else Basic,
        "width": _first_axis(found, "stem.conv.kernel", "stem.norm.scale", usual=64),
    }


def _vit_sizes(found: Recognized) -> dict[str, Any]:
    patch_size = (found.shape_of("patches.kernel") or (16,))[-1]
    positions = found.shape_of("positions") or ()
    patches = positions[1] - 1 if len(positions) == 3 else 196
    width = _first_axis(found, "patches.kernel", "patches.bias", usual=192)
    linear1 = ("blocks.0.linear1.kernel", "blocks.0.linear1.bias")
    return {
        "width": width,
        "blocks": max(1, _count(found, "blocks", "norm1.scale", "linear1.kernel")),
        "hidden": _first_axis(found, *linear1, usual=4 * width),
        "image_size": math.isqrt(max(patches, 1)) * patch_size,
        "patch_size": patch_size,
    }


def _first_axis(found: Recognized, *paths: str, usual: int) -> int:
    shapes = (found.shape_of(path) for path in paths)
    return next((shape[0] for shape in shapes if shape), usual)


def _count(found: Recognized, blocks: str, *leaves: str) -> int:
    count = 0
    while any(found.shape_of(f"{blocks}.{count}.{leaf}") is not None for leaf in leaves):
        count += 1
    return count


# --- what is taken


def settled(found: Recognized, sizes: dict[str, Any], said: Facts, options: Facts) -> Facts:
    """Return the facts that are taken for a transformer of these sizes, none for other networks.

    Options precede our own metadata, these what is `said` beside the file, that the usual values.
    """
    scheme, metadata = found.scheme, found.file.metadata
    if scheme.network is not ViT:
        return {}
    origin = f"default of {scheme.name.removesuffix(' ViT')}"
    usual = facts_of({"activation": "gelu", "epsilon": scheme.epsilon}, origin)
    if published := PUBLISHED_HEADS.get((sizes["width"], sizes["hidden"])):
        usual["heads"] = Fact(published, "published sizes")
    own = {key: _number(metadata[key]) for key in METADATA if key in metadata}
    told = {**usual, **said, **read_fields(found.file.path, own, NETWORK), **options}
    return {name: told[name] for name in METADATA.values() if name in told}


def _number(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def network_fact(found: Recognized, model: Model) -> Fact:
    """Return in words what the tensors tell: naming scheme, depth, width and head."""
    stages = ["blocks"] if hasattr(model, "blocks") else [f"stage{i}" for i in (1, 2, 3, 4)]
    blocks = "-".join(str(len(getattr(model, stage))) for stage in stages)
    prefix = f", prefix {found.prefix}" if found.prefix else ""
    head = "no head" if model.head is None else f"{model.head.out_features} classes"
    size = f"{blocks} blocks, width {model.pooled_width}, {head}"
    return Fact(f"{found.scheme.name}, {size}{prefix}", found.file.path.name)


# --- what differs


def check_tensors(found: Recognized, model: Model, ignore: Collection[str]) -> None:
    """Raise unless the file holds exactly the model's tensors, in their shapes, with values."""
    tensors, expected = found.file.tensors, {}
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        names = found.names_of(dotted(path))
        expected |= dict.fromkeys(names, their_shape(path, leaf.shape, len(names)))
    excused = {found.in_file(name) for name in found.scheme.excused}
    excused |= {n.replace("running_mean", "num_batches_tracked") for n in expected}
    differing = {
        "missing": expected.keys() - tensors,
        "unexpected": tensors.keys() - expected - ignored(tensors, ignore) - excused,
        "of another shape or dtype": [
            f"{name} {list(x.shape)} {x.dtype} instead of {list(expected[name])} float32"
            for name, x in tensors.items()
            if name in expected and (x.shape != expected[name] or str(x.dtype) not in EXACT)
        ],
    }
    if any(differing.values()):
        parts = "; ".join(f"{len(n)} {what}: {listed(n)}" for what, n in differing.items() if n)
        raise CheckpointError(
            f"`source` should hold the tensors of a {found.scheme.name} in {', '.join(EXACT)}, got "
            f"{found.file.path} with {parts}. Pass a checkpoint of this architecture; name in "
            "`ignore` what the network does not compute with, or a pattern such as `decoder.*`."
        )
    _check_values(found, expected)


def _check_values(found: Recognized, used: Collection[str]) -> None:
    """Raise if a tensor that is used holds NaN or infinity, or a running variance below 0."""
    tensors, variances = found.file.tensors, [n for n in used if n.endswith("running_var")]
    bad = {n: "a negative variance in" for n in variances if (tensors[n] < 0).any()}
    bad |= {n: "NaN or infinity in" for n in used if not np.isfinite(tensors[n]).all()}
    if bad:
        raise CheckpointError(
            "`source` should hold finite weights, and variances of at least 0, got "
            f"{listed(f'{what} {name}' for name, what in bad.items())} of {found.file.path}. Take "
            "a checkpoint from before the training diverged, or fetch it again."
        )


def check_facts(found: Recognized, sizes: Mapping[str, Any], facts: Facts) -> None:
    """Raise if a fact contradicts the sizes that the tensors have, or is of another network."""
    network, path = found.scheme.network, found.file.path
    if network is ViT and "heads" not in facts:
        raise CheckpointError(
            f"`heads` should be given for width {sizes['width']} with {sizes['hidden']} inside a "
            f"block, which is no published size, got none for {path}. Pass the number of "
            "attention heads that the network's authors state, or put its `config.json` beside it, "
            "which `download=True` fetches from the hub."
        )
    ours = SIZES | {"architecture": network.__name__} | OURS[network] | _told_by(network, sizes)
    if not sizes["classes"]:  # without a head, the number of classes and an empty pool are void
        facts = {n: x for n, x in facts.items() if n != "classes" and (n, x.value) != ("pool", "")}
    for name in sorted(ours.keys() & facts):
        value, origin = facts[name]
        if (kind_of(value) if name == "architecture" else value) != ours[name]:
            raise CheckpointError(
                f"`source` should have {name} {value!r:.60} by {origin}, got {ours[name]!r} in "
                f"{path}, a plain {network.__name__}. Put weights, configuration and options of "
                "one network together, or take another checkpoint."
            )


def _told_by(network: type, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the tensors tell, by the names of facts."""
    if network is not ResNet:
        return {"model_image_size" if n == "image_size" else n: x for n, x in sizes.items()}
    block, depths = sizes["block"], tuple(sizes["blocks"])
    widths = tuple(sizes["width"] * block.expansion * 2**i for i in range(len(depths)))
    facts = {"depths": depths, "hidden_sizes": widths, "width": widths[-1]}
    return {**facts, "block": block.__name__.lower(), "classes": sizes["classes"]}
