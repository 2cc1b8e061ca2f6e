"""What a network is: by its tensors, and by its facts that no tensor tells, with their origin."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from optax_dtnh.models._activations import ACTIVATIONS
from optax_dtnh.models._checkpoint import Checkpoint
from optax_dtnh.models._errors import CheckpointError
from optax_dtnh.models._facts import Fact
from optax_dtnh.models._names import METADATA, Scheme
from optax_dtnh.models._recognition import Recognized
from optax_dtnh.models._resnet import ResNet
from optax_dtnh.models._vit import PUBLISHED_HEADS, ViT

Facts = Mapping[str, Fact]


class Told(NamedTuple):
    """A fact that the metadata of our files have as text."""

    parse: Callable[[str], Any]
    should: str  # what a value should be
    holds: Callable[[Any, ViT], bool]  # whether a value fits a network of that size


TOLD = {
    "heads": Told(
        int,
        "a divisor of the width",
        lambda value, sizes: value > 0 and sizes.pooled_width % value == 0,
    ),
    "activation": Told(
        str, f"one of {', '.join(ACTIVATIONS)}", lambda value, _: value in ACTIVATIONS
    ),
    "epsilon": Told(
        float, "positive and finite", lambda value, _: value > 0 and math.isfinite(value)
    ),
}


def network(file: Checkpoint, found: Recognized, model: ResNet | ViT) -> Fact:
    """Return in words what the tensors tell: naming scheme, depth, width and head."""
    prefix = f", prefix {found.prefix}" if found.prefix else ""
    size = f"{_depth(model)} blocks, width {model.pooled_width}"
    head = "no head" if model.head is None else f"{model.head.out_features} classes"
    return Fact(f"{found.scheme.name}, {size}, {head}{prefix}", file.path.name)


def _depth(model: ResNet | ViT) -> str:
    if isinstance(model, ViT):
        return str(len(model.blocks))
    return "-".join(str(len(getattr(model, f"stage{i + 1}"))) for i in range(model.stages))


def settled(
    file: Checkpoint, scheme: Scheme, sizes: ViT, said: Facts, heads: int | None
) -> dict[str, Fact]:
    """Return the facts that are taken for a transformer of the size of `sizes`.

    The argument `heads` precedes the metadata of our own files, which precede what is `said` beside
    the file, which precedes the usual values.

    Raises:
      CheckpointError: A value cannot be used, or the number of heads is not known.
    """
    asked = {} if heads is None else {"heads": Fact(heads, "--heads")}
    said = {**_usual(scheme, sizes), **said, **_own(file), **asked}
    taken = {name: said[name] for name in TOLD if name in said}
    if "heads" not in taken:
        raise CheckpointError(
            f"`heads` should be given for width {sizes.pooled_width} with {sizes.hidden} inside a "
            f"block, which is no published size, got none for {file.path}. {_source_of_heads(said)}"
        )
    for name, (value, origin) in taken.items():
        if not TOLD[name].holds(value, sizes):
            width = f" {sizes.pooled_width}" if name == "heads" else ""
            raise CheckpointError(
                f"`{name}` should be {TOLD[name].should}{width}, got {value!r:.60} from {origin} "
                f"for {file.path}. Correct it, or take another checkpoint."
            )
    return taken


def _source_of_heads(said: Facts) -> str:
    stated = "Pass the number of attention heads that the network's authors state"
    if "not_fetched" in said:
        files = ", ".join(said["not_fetched"].value)
        return f"{stated}, or pass `download=True`: {files} may say it and are not fetched."
    if "model_type" in said:
        kind, origin = said["model_type"]
        return f"{stated}: {origin} is not read, since its model_type is {kind}."
    return f"{stated}."


def _usual(scheme: Scheme, sizes: ViT) -> dict[str, Fact]:
    origin = f"default of {scheme.name.removesuffix(' ViT')}"
    usual = {"activation": Fact("gelu", origin), "epsilon": Fact(scheme.epsilon, origin)}
    published = PUBLISHED_HEADS.get((sizes.pooled_width, sizes.hidden))
    return usual if published is None else {**usual, "heads": Fact(published, "published sizes")}


def _own(file: Checkpoint) -> dict[str, Fact]:
    texts = {name: file.metadata[key] for name, key in METADATA.items() if key in file.metadata}
    return {name: Fact(_parsed(file, name, text), file.path.name) for name, text in texts.items()}


def _parsed(file: Checkpoint, name: str, text: str) -> Any:
    try:
        return TOLD[name].parse(text)
    except ValueError as error:
        raise CheckpointError(
            f"`source` should have a number as {METADATA[name]} in its metadata, got {text!r:.60} "
            f"in {file.path}. Save the model again."
        ) from error
