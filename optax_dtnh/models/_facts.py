"""What the files beside a checkpoint say: the shapes of its tensors tell only a part."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optax_dtnh.models._errors import CheckpointError
from optax_dtnh.models._facts_hugging_face import image_facts, model_facts
from optax_dtnh.models._facts_timm import is_timm, timm_facts
from optax_dtnh.models._facts_torchvision import torchvision_facts
from optax_dtnh.models._fields import (
    Fact,
    Facts,
    Reader,
    channels,
    count,
    deviations,
    interpolation,
    positive,
    read_field,
    read_fields,
    read_object,
)

OURS, CONFIG = "preprocessing.json", "config.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
OUR_FIELDS: dict[str, Reader] = {
    "image_size": ("image_size", count),
    "resize": ("resize", count),
    "mean": ("mean", channels),
    "std": ("std", deviations),
    "interpolation": ("interpolation", interpolation),
    "rescale": ("rescale", positive),
}
# Facts that are told but not used: test images are always resized whole, see `Preprocessing`.
UNUSED = (
    "do_resize",
    "do_center_crop",
    "crop_mode",
    "crop_pct",
    "test_input_size",
    "test_crop_pct",
    "timm_interpolation",
)

__all__ = ["OUR_FIELDS", "UNUSED", "Fact", "facts_beside"]


def facts_beside(path: Path) -> dict[str, Fact]:
    """Return what the files beside a checkpoint, or its own name, say about it and its images.

    Our own `preprocessing.json` counts most, then `preprocessor_config.json` (or that part of
    `processor_config.json`), the `config.json` of Hugging Face or timm, and torchvision's names.
    The names and types of the facts are ours, and those in `UNUSED` are of no effect. A file of
    another library says nothing.

    Args:
      path: File of weights, or its folder.

    Raises:
      CheckpointError: A file is malformed, or a field has a wrong value.
    """
    folder = path if path.is_dir() else path.parent
    facts: Facts = {}
    for found in (
        torchvision_facts(path),
        _config_facts(folder / CONFIG),
        _processor_facts(folder),
        _our_facts(folder / OURS),
    ):
        if "image_size" in found:
            facts.pop("resize", None)  # that of another image size
        facts |= found
    return facts


def _config_facts(file: Path) -> Facts:
    content = read_object(file)
    return timm_facts(file, content) if is_timm(content) else model_facts(file, content)


def _processor_facts(folder: Path) -> Facts:
    if content := read_object(folder / PREPROCESSOR):
        return image_facts(folder / PREPROCESSOR, content)
    file = folder / PROCESSOR
    return image_facts(file, read_field(file, read_object(file), "image_processor", _object) or {})


def _our_facts(file: Path) -> Facts:
    content = read_object(file)
    if unknown := sorted(content.keys() - OUR_FIELDS):
        raise CheckpointError(
            f"The fields of '{file}' should be among {', '.join(OUR_FIELDS)}, got {unknown[0]!r}. "
            "Mend or remove the file."
        )
    return read_fields(file, content, OUR_FIELDS)


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object")
    return value
