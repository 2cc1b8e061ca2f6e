"""Fields of a JSON file beside a checkpoint: each is read in one form, or is one error."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from optax_dtnh.models._checkpoint import CheckpointError

LARGEST_COUNT = 10**6  # so that sizes derived from it stay numbers of pixels
INTERPOLATIONS = dict(enumerate("nearest lanczos bilinear bicubic box hamming".split()))


class Fact(NamedTuple):
    """A value, and where it comes from."""

    value: Any
    origin: str  # a file's name such as "config.json", an option such as "--mean", or a default


Facts = dict[str, Fact]
# Our value of theirs: None for a field that says nothing, or ValueError with what is wanted.
Read = Callable[[Any], Any]


def facts_of(values: Mapping[str, Any], origin: str) -> Facts:
    """Return the values as facts of one origin."""
    return {name: Fact(value, origin) for name, value in values.items()}


def read_object(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one if there is no such file."""
    if not file.is_file():
        return {}
    try:
        return json_object(json.loads(file.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"A file beside a checkpoint should be an object in JSON, got '{file}' "
            f"({type(error).__name__}: {' '.join(str(error).split())}). Mend or remove the file."
        ) from error


def read_fields(file: Path, content: Mapping[str, Any], readers: Mapping[str, Read]) -> Facts:
    """Return the facts that are read from the fields of the content, the last of `NAMES` first."""
    named = [(NAMES.get(key, key), key) for key in (*readers, *NAMES)]
    found = [(x, read_field(file, content, key, readers[x])) for x, key in named if x in readers]
    return facts_of({ours: value for ours, value in found if value is not None}, file.name)


def read_field(file: Path, content: Mapping[str, Any], key: str, read: Read) -> Any | None:
    """Return the value of one field, None if it is missing or null."""
    value = content.get(key)
    try:
        return None if value is None else read(value)
    except ValueError as error:
        raise CheckpointError(
            f"`{key}` in '{file}' should be {error}, got {value!r:.80}. Mend or remove the file."
        ) from error


# --- what reads a field


def reader(wanted: str, fits: Callable[[Any], bool], make: Read = lambda value: value) -> Read:
    """Return what makes our value of one that `fits`, and refuses others with what is `wanted`."""

    def read(value: Any) -> Any:
        if not fits(value):
            raise ValueError(wanted)
        return make(value)

    return read


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30  # more may be too large for a float


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST_COUNT


text = reader("a text", lambda value: isinstance(value, str))
flag = reader("true or false", lambda value: isinstance(value, bool))
json_object = reader("an object", lambda value: isinstance(value, dict))
count = reader(f"a positive whole number up to {LARGEST_COUNT}", _is_count)
positive = reader("a positive number", lambda value: _is_number(value) and value > 0, float)
# What a crop leaves of an image, not so small that no image is that large.
share = reader("a positive number of at least 0.01", lambda x: _is_number(x) and x >= 0.01, float)
never = reader("false, since images are prepared without it here", lambda x: not x, lambda _: None)


def plain(value: Any) -> Any:
    """Return a value that the tensors tell too: what is wrong contradicts them."""
    return tuple(value) if isinstance(value, list) else value


def side(value: Any) -> int | tuple[int, int] | None:
    """Return a square's side, else height and width, of a number, a list or an object of them.

    In a list of three, the first is the number of channels.
    """
    if isinstance(value, dict):
        given = {key: x for key, x in value.items() if x is not None}
        if not given:
            return None
        edge = given.get("shortest_edge", given.get("longest_edge"))
        value = [given["height"], given["width"]] if {"height", "width"} <= {*given} else edge
    sides = value[len(value) == 3 :] if isinstance(value, list) else [value]
    if len(sides) not in (1, 2) or not all(map(_is_count, sides)):
        raise ValueError(f"a positive number up to {LARGEST_COUNT}, or height and width")
    return sides[0] if sides[0] == sides[-1] else tuple(sides)


def channels(value: Any) -> tuple[float, ...]:
    """Return one number for each of three channels, of one number or of a list of one or three."""
    values = value if isinstance(value, list) else [value]
    if len(values) not in (1, 3) or not all(map(_is_number, values)):
        raise ValueError("a finite number, or a list of three")
    return tuple(map(float, values * (3 // len(values))))


def interpolation(value: Any) -> str:
    """Return Pillow's name of an interpolation, of the name in any case or of its number."""
    name = INTERPOLATIONS.get(value) if type(value) is int else str(value).lower()
    if name is None or name not in INTERPOLATIONS.values():
        raise ValueError(f"one of {', '.join(INTERPOLATIONS.values())}")
    return name


spread = reader("a positive number, or a list of three", lambda x: min(channels(x)) > 0, channels)

# Where they differ from ours: the names in our own metadata, in Hugging Face's files and in timm's.
THEIRS = {
    "heads": "attention_heads num_attention_heads num_heads",
    "activation": "hidden_act act_layer",
    "epsilon": "layer_norm_epsilon layer_norm_eps",
    "width": "hidden_size embed_dim",
    "hidden": "intermediate_size",
    "blocks": "num_hidden_layers depth",
    "depths": "layers",
    "block": "layer_type",
    "classes": "num_labels num_classes id2label",
    "model_image_size": "img_size",
    "image_size": "input_size",
    "pool": "global_pool",
    "mean": "image_mean",
    "std": "image_std",
    "interpolation": "resample",
    "rescale": "rescale_factor",
}
NAMES = {theirs: ours for ours, names in THEIRS.items() for theirs in names.split()}
# What reads a fact about the network, and one about its images, by our names.
NETWORK: dict[str, Read] = {
    **dict.fromkeys("width hidden blocks depths hidden_sizes block pool qkv_bias".split(), plain),
    **dict.fromkeys(("downsample_in_first_stage", "downsample_in_bottleneck"), plain),
    **dict.fromkeys(("architecture", "activation"), text),
    **dict.fromkeys(("image_size", "model_image_size", "patch_size"), side),
    **{"heads": count, "epsilon": positive},
    "classes": lambda value: len(value) if isinstance(value, dict) else value,
}
IMAGES: dict[str, Read] = {
    **{"image_size": side, "mean": channels, "std": spread, "interpolation": interpolation},
    **{"rescale": positive, "crop_pct": share},
    **dict.fromkeys(("do_flip_channel_order", "offset", "rescale_offset"), never),
}
