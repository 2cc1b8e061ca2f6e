"""Fields of a JSON file beside a checkpoint: each is read in one form, or is one error."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from optax_dtnh.models._errors import CheckpointError

LARGEST = 1e30  # of all numbers here; a whole number of JSON may be too large for a float
LARGEST_COUNT = 10**6  # so that sizes derived from it stay numbers of pixels
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


class Fact(NamedTuple):
    """A value, and where it comes from."""

    value: Any
    origin: str  # a file's name such as "config.json", an option such as "--mean", or a default


Facts = dict[str, Fact]
# Our name of a field, and what makes our value of theirs. It returns None for a field that says
# nothing, and raises ValueError with what is wanted.
Reader = tuple[str, Callable[[Any], Any]]


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


def read_fields(file: Path, content: Mapping[str, Any], readers: Mapping[str, Reader]) -> Facts:
    """Return the facts of these fields; a field that is missing or null says nothing."""
    return {
        ours: Fact(value, file.name)
        for theirs, (ours, read) in readers.items()
        if (value := read_field(file, content, theirs, read)) is not None
    }


def read_field(
    file: Path, content: Mapping[str, Any], key: str, read: Callable[[Any], Any]
) -> Any | None:
    """Return the value of one field, None if it is missing or null."""
    value = content.get(key)
    try:
        return None if value is None else read(value)
    except ValueError as error:
        raise CheckpointError(
            f"`{key}` in '{file}' should be {error}, got {value!r:.80}. Mend or remove the file."
        ) from error


def of_type(kind: Any, wanted: str) -> Callable[[Any], Any]:
    """Return what reads a value of a type as it is."""

    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError(wanted)
        return value

    return read


text = of_type(str, "a text")
flag = of_type(bool, "true or false")
json_object = of_type(dict, "an object")


def plain(value: Any) -> Any:
    """Return a value that the tensors tell too: what is wrong contradicts them."""
    return tuple(value) if isinstance(value, list) else value


def count(value: Any) -> int:
    """Return a positive whole number."""
    if type(value) is not int or value < 1:
        raise ValueError("a positive whole number")
    if value > LARGEST_COUNT:
        raise ValueError(f"a whole number up to {LARGEST_COUNT}")
    return value


def side(value: Any) -> int | tuple[int, int] | None:
    """Return the side of a square, or height and width of what is not square.

    They are given as a number, a list, or an object of height and width or of an edge.
    """
    if isinstance(value, dict):
        given = {key: x for key, x in value.items() if x is not None}
        if not given:
            return None
        edge = given.get("shortest_edge", given.get("longest_edge"))
        value = [given["height"], given["width"]] if {"height", "width"} <= {*given} else edge
    sides = value if isinstance(value, list) else [value]
    try:
        height, width = map(count, sides * 2 if len(sides) == 1 else sides)
    except ValueError:
        raise ValueError(f"a positive number up to {LARGEST_COUNT}, or height and width") from None
    return height if height == width else (height, width)


def other_than(usual: Any) -> Callable[[Any], Any]:
    """Return what reads a value that is told where it is not the usual one."""
    return lambda value: None if value == usual else value


def never(value: Any) -> None:
    """Say nothing of a flag that is false."""
    if value:
        raise ValueError("false, since images are prepared without it here")


def positive(value: Any) -> float:
    """Return a positive finite number."""
    if type(value) not in (int, float) or not 0 < value < LARGEST:
        raise ValueError("a positive number")
    return float(value)


def share(value: Any) -> float:
    """Return the share of an image that a crop leaves, not so small that no image is that large."""
    if positive(value) < 0.01:
        raise ValueError("a positive number of at least 0.01")
    return float(value)


def channels(value: Any) -> tuple[float, float, float]:
    """Return one number for each of three channels, of one number or of a list of one or three."""
    values = value if isinstance(value, list) else [value]
    values = values * 3 if len(values) == 1 else values
    if len(values) != 3 or not all(type(v) in (int, float) and abs(v) < LARGEST for v in values):
        raise ValueError("a finite number, or a list of three")
    red, green, blue = map(float, values)
    return red, green, blue


def deviations(value: Any) -> tuple[float, float, float]:
    """Return one positive number for each of three channels, as `channels`."""
    if min(found := channels(value)) <= 0:
        raise ValueError("a positive number, or a list of three")
    return found


def interpolation(value: Any) -> str:
    """Return Pillow's name of an interpolation, of the name in any case or of its number."""
    name = INTERPOLATIONS.get(value) if type(value) is int else str(value).lower()
    if name is None or name not in INTERPOLATIONS.values():
        raise ValueError(f"one of {', '.join(INTERPOLATIONS.values())}")
    return name
