"""Whether tensors, and what is said beside them, are those of one network, and of one of ours."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from flax import nnx

from optax_dtnh.models._architectures import kind_of
from optax_dtnh.models._checkpoint import Checkpoint
from optax_dtnh.models._errors import CheckpointError
from optax_dtnh.models._facts import Fact
from optax_dtnh.models._hints import hint, what_to_do
from optax_dtnh.models._layout import EXACT, dotted, their_shape
from optax_dtnh.models._recognition import Recognized, ignored, listed
from optax_dtnh.models._resnet import Bottleneck, ResNet
from optax_dtnh.models._vit import ViT

Facts = Mapping[str, Fact]
TOGETHER = "Put the weights and the configuration of one network together."
HALF_A_HEAD = (
    "Add them, or remove the other tensors of the head: `replace_head` and every training make a "
    "new one."
)
# What our networks are where others differ without another tensor, by the names of facts.
OURS = {
    ViT: {"pool": "token", "qkv_bias": True},
    ResNet: {
        "pool": "avg",
        "activation": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    },
}
NO_HEAD = {"pool": ""}  # and what a backbone may be instead
# Facts of the other network alone.
FOREIGN = {
    ViT: ("depths", "hidden_sizes", "block"),
    ResNet: ("heads", "hidden", "blocks", "patch_size"),
}


def check_kind(file: Checkpoint, model: ResNet | ViT, facts: Facts) -> None:
    """Raise if the facts are those of a network that computes what ours do not."""
    _check_architecture(file, model, facts)
    for name in FOREIGN[type(model)]:
        if name in facts:
            raise CheckpointError(
                f"`source` should be a network with {name} {facts[name].value!r:.60} by "
                f"{facts[name].origin}, got {file.path}, a {type(model).__name__}. {TOGETHER}"
            )
    bare = NO_HEAD if model.head is None else {}
    for name, ours in OURS[type(model)].items():
        if name in facts and facts[name].value not in (ours, bare.get(name, ours)):
            raise CheckpointError(
                f"`source` should be a {type(model).__name__} with {name} {ours}, got {file.path} "
                f"with {facts[name].value!r:.60} by {facts[name].origin}. Take another checkpoint."
            )


def _check_architecture(file: Checkpoint, model: ResNet | ViT, facts: Facts) -> None:
    if "architecture" not in facts:
        return
    name, origin = facts["architecture"]
    kind, ours = kind_of(name), type(model).__name__
    if kind is None:
        raise CheckpointError(
            f"`source` should be a plain ResNet or ViT, got {file.path}, which is {name!r:.60} by "
            f"{origin}. Take another checkpoint."
        )
    if kind != ours:
        raise CheckpointError(
            f"`source` should be {name!r:.60} by {origin}, a {kind}, got {file.path}, a {ours}. "
            f"{TOGETHER}"
        )


def check_tensors(
    file: Checkpoint, found: Recognized, model: ResNet | ViT, ignore: Collection[str]
) -> None:
    """Raise unless the file holds exactly the tensors of the model, in their shapes."""
    leaves = dict(nnx.to_flat_state(nnx.state(model)))
    names = {path: found.names_of(dotted(path)) for path in leaves}
    expected = {
        name: their_shape(path, leaf.shape, len(names[path]))
        for path, leaf in leaves.items()
        for name in names[path]
    }
    excused = {found.in_file(name) for name in found.scheme.excused}
    unused = set(file.tensors) - set(expected) - ignored(file.tensors, ignore) - excused
    counters = {n.removesuffix("running_mean") + "num_batches_tracked" for n in expected}
    wrong = [
        f"{name} {list(tensor.shape)} {tensor.dtype} instead of {list(expected[name])} float32"
        for name, tensor in file.tensors.items()
        if name in expected and (tensor.shape != expected[name] or str(tensor.dtype) not in EXACT)
    ]
    differing = {
        "missing": expected.keys() - file.tensors,
        "unexpected": unused - counters,
        "of another shape or dtype": wrong,
    }
    if [*filter(any, differing.values())] == [wrong]:
        _check_dtypes(file, expected)
    if any(differing.values()):
        parts = "; ".join(f"{len(n)} {what}: {listed(n)}" for what, n in differing.items() if n)
        head = {name for path in leaves if path[0] == "head" for name in names[path]}
        half = not differing["unexpected"] and set() < differing["missing"] <= head
        raise CheckpointError(
            f"`source` should hold the tensors of a {found.scheme.name}, got {file.path} with "
            f"{parts}. {HALF_A_HEAD if half else what_to_do(differing['unexpected'])}"
        )


def _check_dtypes(file: Checkpoint, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise if all tensors have their shape, but some a dtype that float32 does not hold."""
    tensors = {name: file.tensors[name] for name in expected}
    wide = {name: str(x.dtype) for name, x in tensors.items() if str(x.dtype) not in EXACT}
    if all(x.shape == expected[name] for name, x in tensors.items()):
        raise CheckpointError(
            f"`source` should hold {', '.join(EXACT)}, got {file.path} with {len(wide)} tensors of "
            f"{', '.join(sorted({*wide.values()}))}: {listed(wide, 3)}. Save them as float32."
        )


def check_grid(file: Checkpoint, found: Recognized, model: ResNet | ViT, facts: Facts) -> None:
    """Raise unless the positions of a transformer are those of a square of patches."""
    if isinstance(model, ResNet):
        return
    name = found.names_of("positions")[0]
    shape = file.tensors[name].shape if name in file.tensors else ()
    patches = shape[1] - 1 if len(shape) == 3 else 1
    if patches < 1 or round(patches**0.5) ** 2 != patches:
        raise CheckpointError(
            f"`source` should have positions for a class token and a square of patches, got "
            f"{name} {list(shape)} in {file.path}. {_about_tokens(file, found)}"
        )
    size, origin = facts.get("model_image_size", (None, ""))
    if isinstance(size, Collection) and len(set(size)) > 1:
        raise CheckpointError(
            f"`source` should be a network for square images, got {file.path} for "
            f"{' x '.join(map(str, size))} by {origin}. Take a checkpoint for square images."
        )


def _about_tokens(file: Checkpoint, found: Recognized) -> str:
    if found.names_of("cls_token")[0] not in file.tensors:
        return "It has no class token. Take a checkpoint with one."
    return hint(file.tensors) or "Take a checkpoint for square images."


def check_facts(file: Checkpoint, found: Recognized, model: ResNet | ViT, facts: Facts) -> None:
    """Raise if a fact contradicts the tensors, naming both."""
    sizes = _sizes_of_vit(model) if isinstance(model, ViT) else _sizes_of_resnet(model)
    if model.head is not None:  # without one, the facts may be those of the head that was left out
        classes = model.head.out_features
        sizes |= {"classes": (classes, "head.kernel"), "labels": (classes, "head.kernel")}
    for name, (size, path) in sizes.items():
        said = _comparable(name, facts[name].value, model) if name in facts else size
        if said != size:
            raise CheckpointError(
                f"`source` should be a network with {name} {said} by {facts[name].origin}, got "
                f"{file.path} with {size} by {found.names_of(path)[0]}. {TOGETHER}"
            )


def _comparable(name: str, value: Any, model: ResNet | ViT) -> Any:
    if name == "labels":
        return len(value)
    if name == "model_image_size" and isinstance(model, ViT):
        patch_size = model.patches.kernel_size[0]
        side = max(value) if isinstance(value, Collection) else value
        return side // patch_size * patch_size  # a library cuts the rest off
    return tuple(value) if isinstance(value, Collection) and not isinstance(value, str) else value


def _sizes_of_vit(model: ViT) -> dict[str, tuple[Any, str]]:
    return {
        "width": (model.pooled_width, "patches.kernel"),
        "hidden": (model.hidden, "blocks.0.linear1.kernel"),
        "blocks": (len(model.blocks), f"blocks.{len(model.blocks) - 1}.norm1.scale"),
        "patch_size": (model.patches.kernel_size[0], "patches.kernel"),
        "model_image_size": (model.image_size, "positions"),
    }


def _sizes_of_resnet(model: ResNet) -> dict[str, tuple[Any, str]]:
    stages = [getattr(model, f"stage{i + 1}") for i in range(model.stages)]
    block = type(stages[0][0])
    width = model.stem.conv.out_features * block.expansion
    return {
        "width": (model.pooled_width, "stage1.0.conv1.kernel"),
        "depths": (tuple(map(len, stages)), "stage1.0.conv1.kernel"),
        "hidden_sizes": (tuple(width * 2**i for i in range(len(stages))), "stem.conv.kernel"),
        "block": ("bottleneck" if block is Bottleneck else "basic", "stage1.0.conv1.kernel"),
    }


def check_variances(file: Checkpoint, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise if a running variance is negative, naming the tensors."""
    negative = [n for n, x in arrays.items() if n.endswith("running_var") and (x < 0).any()]
    if negative:
        raise CheckpointError(
            "`source` should hold variances of at least 0, got negative ones in "
            f"{listed(negative)} of {file.path}. "
            "Fetch it again: an average of statistics cannot be negative."
        )
