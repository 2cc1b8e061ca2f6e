"""What the files beside a checkpoint say: the shapes of its tensors tell only a part."""

from pathlib import Path

from optax_dtnh.models import _fields as fields
from optax_dtnh.models._architectures import implied
from optax_dtnh.models._errors import CheckpointError
from optax_dtnh.models._facts_hugging_face import image_facts, model_facts
from optax_dtnh.models._facts_timm import is_timm, timm_facts
from optax_dtnh.models._facts_torchvision import torchvision_facts
from optax_dtnh.models._fields import Fact, Facts, Reader, read_field, read_fields, read_object

OURS, CONFIG = "preprocessing.json", "config.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
SNAPSHOTS = "snapshots"  # in the cache of the hub: the folder of the revisions of a repository
OUR_FIELDS: dict[str, Reader] = {
    "image_size": ("image_size", fields.count),
    "resize": ("resize", fields.count),
    "mean": ("mean", fields.channels),
    "std": ("std", fields.deviations),
    "interpolation": ("interpolation", fields.interpolation),
    "rescale": ("rescale", fields.positive),
}
# Facts that are told but not used: test images are always resized whole, see `Preprocessing`.
UNUSED = ("do_resize", "do_center_crop", "do_pad", "crop_mode", "crop_pct", "test_input_size")
UNUSED += ("model_type",)

__all__ = ["OUR_FIELDS", "UNUSED", "Fact", "facts_beside"]


def facts_beside(path: Path) -> dict[str, Fact]:
    """Return what the files beside a checkpoint, or its own name, say about it and its images.

    Our own `preprocessing.json` counts most, then `preprocessor_config.json` (or that part of
    `processor_config.json`), the `config.json` of Hugging Face or timm, torchvision's names, and
    the name of an architecture. The facts in `UNUSED` are of no effect.
    A file that a repository of the hub lacks in the folder of the weights is read in its root. The
    path is that of the weights or of their folder.

    Raises:
      CheckpointError: A file is malformed, or a field has a wrong value.
    """
    facts: Facts = {}
    folders = _folders(path)
    for found in (
        torchvision_facts(path),
        _config_facts(_nearest(folders, CONFIG)),
        _processor_facts(folders),
        _our_facts(folders[0] / OURS),
    ):
        if "image_size" in found:
            facts.pop("resize", None)  # that of another image size
        facts |= found
    return implied(facts) | facts


def _folders(path: Path) -> list[Path]:
    """Return the folder of the weights and, in the cache of the hub, the root of the repository."""
    folder = path if path.is_dir() else path.parent
    return [folder, *(p for p in folder.parents if p.parent.name == SNAPSHOTS)]


def _nearest(folders: list[Path], name: str) -> Path:
    return next((f / name for f in folders if (f / name).is_file()), folders[0] / name)


def _config_facts(file: Path) -> Facts:
    content = read_object(file)
    return timm_facts(file, content) if is_timm(content) else model_facts(file, content)


def _processor_facts(folders: list[Path]) -> Facts:
    file = _nearest(folders, PREPROCESSOR)
    if content := read_object(file):
        return image_facts(file, content)
    file = _nearest(folders, PROCESSOR)
    content = read_field(file, read_object(file), "image_processor", fields.json_object)
    return image_facts(file, content or {})


def _our_facts(file: Path) -> Facts:
    content = read_object(file)
    if unknown := sorted(content.keys() - OUR_FIELDS):
        raise CheckpointError(
            f"The fields of '{file}' should be among {', '.join(OUR_FIELDS)}, got {unknown[0]!r}. "
            "Mend or remove the file."
        )
    return read_fields(file, content, OUR_FIELDS)
