"""What a network is: by its tensors, and by its facts that no tensor tells, with their origin."""

import json
from typing import Any

from optax_dtnh.models._checkpoint import Checkpoint
from optax_dtnh.models._errors import CheckpointError
from optax_dtnh.models._fields import Fact, Facts, Reader, count, positive, read_fields, text
from optax_dtnh.models._recognition import Recognized
from optax_dtnh.models._resnet import ResNet
from optax_dtnh.models._vit import PUBLISHED_HEADS, ViT

# What our own files store in their metadata, because no tensor tells it.
METADATA: dict[str, Reader] = {
    "attention_heads": ("heads", count),
    "activation": ("activation", text),
    "layer_norm_epsilon": ("epsilon", positive),
}


def network(file: Checkpoint, found: Recognized, model: ResNet | ViT) -> Fact:
    """Return in words what the tensors tell: naming scheme, depth, width and head."""
    stages = ["blocks"] if isinstance(model, ViT) else [f"stage{i}" for i in (1, 2, 3, 4)]
    blocks = "-".join(str(len(getattr(model, stage))) for stage in stages)
    prefix = f", prefix {found.prefix}" if found.prefix else ""
    size = f"{blocks} blocks, width {model.pooled_width}"
    head = "no head" if model.head is None else f"{model.head.out_features} classes"
    return Fact(f"{found.scheme.name}, {size}, {head}{prefix}", file.path.name)


def settled(
    file: Checkpoint, found: Recognized, sizes: dict[str, Any], said: Facts, heads: int | None
) -> Facts:
    """Return the facts that are taken for a transformer of these sizes, none for a ResNet.

    The argument `heads` precedes the metadata of our own files, which precede what is `said` beside
    the file, which precedes the usual values.
    """
    if found.scheme.network is ResNet:
        if heads is None:
            return {}
        raise CheckpointError(
            f"`heads` should be left out for a ResNet, got {heads} for {file.path}. Drop it."
        )
    own = {key: _number(value) for key, value in file.metadata.items()}
    said = {**_usual(found, sizes), **said, **read_fields(file.path, own, METADATA)}
    if heads is not None:
        said["heads"] = Fact(heads, "--heads")
    if "heads" not in said:
        raise CheckpointError(
            f"`heads` should be given for width {sizes['width']} with {sizes['hidden']} inside a "
            f"block, which is no published size, got none for {file.path}. Pass the number of "
            "attention heads that the network's authors state, or put its `config.json` beside it, "
            "which `download=True` fetches from the hub."
        )
    return {name: said[name] for name, _ in METADATA.values()}


def _usual(found: Recognized, sizes: dict[str, Any]) -> Facts:
    origin = f"default of {found.scheme.name.removesuffix(' ViT')}"
    usual = {"activation": Fact("gelu", origin), "epsilon": Fact(found.scheme.epsilon, origin)}
    published = PUBLISHED_HEADS.get((sizes["width"], sizes["hidden"]))
    return usual if published is None else {**usual, "heads": Fact(published, "published sizes")}


def _number(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
