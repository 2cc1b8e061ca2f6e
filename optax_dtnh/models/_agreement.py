"""Whether tensors, and what is said beside them, are those of one network, and of one of ours."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from flax import nnx

from optax_dtnh.models._architectures import kind_of
from optax_dtnh.models._checkpoint import Checkpoint
from optax_dtnh.models._errors import CheckpointError
from optax_dtnh.models._fields import Facts
from optax_dtnh.models._layout import EXACT, dotted, their_shape
from optax_dtnh.models._recognition import Recognized, ignored, listed
from optax_dtnh.models._resnet import ResNet
from optax_dtnh.models._vit import ViT

# What no size tells of our networks, by the names of facts. None is what only the other one has.
OURS: dict[type[ResNet] | type[ViT], dict[str, Any]] = {
    ViT: {
        **{"architecture": "ViT", "pool": "token", "qkv_bias": True},
        **dict.fromkeys(("depths", "hidden_sizes", "block")),
    },
    ResNet: {
        **{"architecture": "ResNet", "pool": "avg", "activation": "relu"},
        **dict.fromkeys(("downsample_in_first_stage", "downsample_in_bottleneck"), False),
        **dict.fromkeys(("heads", "hidden", "blocks", "patch_size")),
    },
}


def check_facts(file: Checkpoint, found: Recognized, sizes: Mapping[str, Any], said: Facts) -> None:
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
                f"{file.path}, a plain {network.__name__}. Put the weights and the configuration "
                "of one network together, or take another checkpoint."
            )


def _told_by(network: type, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the tensors tell, by the names of facts."""
    if network is ViT:
        same = ("width", "hidden", "blocks", "patch_size", "classes")
        return {"model_image_size": sizes["image_size"], **{name: sizes[name] for name in same}}
    first = sizes["width"] * sizes["block"].expansion
    widths = tuple(first * 2**i for i in range(len(sizes["blocks"])))
    block = sizes["block"].__name__.lower()
    facts = {"depths": tuple(sizes["blocks"]), "hidden_sizes": widths, "width": widths[-1]}
    return {**facts, "block": block, "classes": sizes["classes"]}


def check_tensors(
    file: Checkpoint, found: Recognized, model: ResNet | ViT, ignore: Collection[str]
) -> None:
    """Raise unless the file holds exactly the tensors of the model, in their shapes."""
    expected = {
        name: their_shape(path, leaf.shape, len(names))
        for path, leaf in nnx.to_flat_state(nnx.state(model))
        for names in [found.names_of(dotted(path))]
        for name in names
    }
    excused = {found.in_file(name) for name in found.scheme.excused}
    excused |= {n.removesuffix("running_mean") + "num_batches_tracked" for n in expected}
    differing = {
        "missing": expected.keys() - file.tensors,
        "unexpected": file.tensors.keys() - expected - ignored(file.tensors, ignore) - excused,
        "of another shape or dtype": [
            f"{name} {list(x.shape)} {x.dtype} instead of {list(expected[name])} float32"
            for name, x in file.tensors.items()
            if name in expected and (x.shape != expected[name] or str(x.dtype) not in EXACT)
        ],
    }
    if any(differing.values()):
        parts = "; ".join(f"{len(n)} {what}: {listed(n)}" for what, n in differing.items() if n)
        raise CheckpointError(
            f"`source` should hold the tensors of a {found.scheme.name} in {', '.join(EXACT)}, got "
            f"{file.path} with {parts}. Pass a checkpoint of this architecture; name in `ignore` "
            "what the network does not compute with, or a pattern such as `decoder.*`."
        )


def check_values(file: Checkpoint, used: Mapping[str, np.ndarray]) -> None:
    """Raise if a tensor that is used holds NaN or infinity, or a running variance below 0."""
    wrong = {
        "NaN or infinity": [name for name, x in used.items() if not np.isfinite(x).all()],
        "negative variances": [
            n for n, x in used.items() if n.endswith("running_var") and (x < 0).any()
        ],
    }
    for what, names in wrong.items():
        if names:
            raise CheckpointError(
                f"`source` should hold finite weights, and variances of at least 0, got {what} in "
                f"{listed(names)} of {file.path}. Take a checkpoint from before the training "
                "diverged, or fetch it again."
            )
