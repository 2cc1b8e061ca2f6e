"""Whether tensors, and what is said beside them, are those of one of our networks, and of which."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from flax import nnx

from optax_dtnh.models._checkpoint import CheckpointError
from optax_dtnh.models._efficientnet import EfficientNetLite0
from optax_dtnh.models._fields import Fact, Facts, facts_of, read_fields
from optax_dtnh.models._names import EXACT, Model, Recognized, dotted, ignored, listed, their_shape
from optax_dtnh.models._resnet import ResNet
from optax_dtnh.models._sizes import kind_of
from optax_dtnh.models._vit import PUBLISHED_HEADS, ViT

OF_RESNETS = dict.fromkeys(("depths", "hidden_sizes", "block"))
OF_VITS = dict.fromkeys(("heads", "hidden", "blocks", "patch_size"))
# What no size tells of our networks, by the names of facts. None is what only another one has.
OURS: dict[type[Model], dict[str, Any]] = {
    ViT: {"architecture": "ViT", "pool": "token", "qkv_bias": True, **OF_RESNETS},
    ResNet: {"architecture": "ResNet", "pool": "avg", "activation": "relu", **OF_VITS}
    | dict.fromkeys(("downsample_in_first_stage", "downsample_in_bottleneck"), False),
    EfficientNetLite0: {"architecture": "EfficientNetLite0", "pool": "avg", "activation": "relu6"}
    | {**OF_RESNETS, **OF_VITS},
}
# What our own files store in their metadata, because no tensor tells it.
METADATA = {"attention_heads": "heads", "activation": "activation", "layer_norm_epsilon": "epsilon"}


def check_facts(found: Recognized, sizes: Mapping[str, Any], said: Facts) -> None:
    """Raise if a fact contradicts the sizes that the tensors have, or is of another network."""
    network = found.scheme.network
    ours = OURS[network] | _told_by(network, sizes)
    if not sizes["classes"]:  # the head was left out, or never was
        said = {n: x for n, x in said.items() if n != "classes" and (n, x.value) != ("pool", "")}
    for name in sorted(ours.keys() & said):
        value, origin = said[name]
        told = kind_of(value) if name == "architecture" else value
        if told != ours[name]:
            raise CheckpointError(
                f"`source` should have {name} {value!r:.60} by {origin}, got {ours[name]!r} in "
                f"{found.file.path}, a plain {network.__name__}. Put the weights and the "
                "configuration of one network together, or take another checkpoint."
            )


def _told_by(network: type, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the tensors tell, by the names of facts."""
    if network is not ResNet:
        return {"model_image_size" if n == "image_size" else n: x for n, x in sizes.items()}
    block, depths = sizes["block"], tuple(sizes["blocks"])
    widths = tuple(sizes["width"] * block.expansion * 2**i for i in range(len(depths)))
    facts = {"depths": depths, "hidden_sizes": widths, "width": widths[-1]}
    return {**facts, "block": block.__name__.lower(), "classes": sizes["classes"]}


def check_tensors(found: Recognized, model: Model, ignore: Collection[str]) -> None:
    """Raise unless the file holds exactly the tensors of the model, in their shapes."""
    tensors, expected = found.file.tensors, {}
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        names = found.names_of(dotted(path))
        expected |= dict.fromkeys(names, their_shape(path, leaf.shape, len(names)))
    excused = {found.in_file(name) for name in found.scheme.excused}
    excused |= {n.removesuffix("running_mean") + "num_batches_tracked" for n in expected}
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


def check_values(found: Recognized, used: Mapping[str, np.ndarray]) -> None:
    """Raise if a tensor that is used holds NaN or infinity, or a running variance below 0."""
    variances = {name: x for name, x in used.items() if name.endswith("running_var")}
    for what, names in {
        "NaN or infinity": [name for name, x in used.items() if not np.isfinite(x).all()],
        "negative variances": [name for name, x in variances.items() if (x < 0).any()],
    }.items():
        if names:
            raise CheckpointError(
                f"`source` should hold finite weights, and variances of at least 0, got {what} in "
                f"{listed(names)} of {found.file.path}. Take a checkpoint from before the training "
                "diverged, or fetch it again."
            )


# --- what is taken


def network(found: Recognized, model: Model) -> Fact:
    """Return in words what the tensors tell: naming scheme, depth, width and head."""
    stages = ["blocks"] if hasattr(model, "blocks") else [f"stage{i}" for i in (1, 2, 3, 4)]
    blocks = "-".join(str(len(getattr(model, stage))) for stage in stages)
    prefix = f", prefix {found.prefix}" if found.prefix else ""
    head = "no head" if model.head is None else f"{model.head.out_features} classes"
    size = f"{blocks} blocks, width {model.pooled_width}, {head}"
    return Fact(f"{found.scheme.name}, {size}{prefix}", found.file.path.name)


def settled(found: Recognized, sizes: dict[str, Any], said: Facts, heads: int | None) -> Facts:
    """Return the facts that are taken for a transformer of these sizes, none for other networks.

    `heads` precedes our own metadata, these what is `said` beside the file, that the usual values.
    """
    (path, _, metadata), scheme = found.file, found.scheme
    if scheme.network is not ViT:
        if heads is None:
            return {}
        raise CheckpointError(
            f"`heads` should be given for a ViT alone, got {heads} for {path}. Drop it."
        )
    own = {key: _number(value) for key, value in metadata.items()}
    origin = f"default of {scheme.name.removesuffix(' ViT')}"
    usual = facts_of({"activation": "gelu", "epsilon": scheme.epsilon}, origin)
    if published := PUBLISHED_HEADS.get((sizes["width"], sizes["hidden"])):
        usual["heads"] = Fact(published, "published sizes")
    said = {**usual, **said, **read_fields(path, own, METADATA)}
    if heads is not None:
        said["heads"] = Fact(heads, "--heads")
    if "heads" not in said:
        raise CheckpointError(
            f"`heads` should be given for width {sizes['width']} with {sizes['hidden']} inside a "
            f"block, which is no published size, got none for {path}. Pass the number of "
            "attention heads that the network's authors state, or put its `config.json` beside it, "
            "which `download=True` fetches from the hub."
        )
    return {name: said[name] for name in METADATA.values()}


def _number(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
