"""What the files beside a checkpoint say: the shapes of its tensors tell only a part."""

from pathlib import Path
from typing import Any

from optax_dtnh.models import _fields as fields
from optax_dtnh.models._checkpoint import CheckpointError
from optax_dtnh.models._configurations import image_facts, is_timm, model_facts, timm_facts
from optax_dtnh.models._fields import Fact, Facts, read_field, read_fields, read_object
from optax_dtnh.models._sizes import implied, torchvision_facts

SNAPSHOTS = "snapshots"  # in the cache of the hub: the folder of the revisions of a repository
OUR_NAMES = "image_size resize mean std interpolation rescale"
OUR_FIELDS = fields.table({}, OUR_NAMES, image_size=fields.count)
# Facts that are told but not used: test images are always resized whole, see `Preprocessing`.
UNUSED = "do_resize do_center_crop do_pad crop_mode crop_pct test_input_size model_type".split()


def facts_beside(path: Path) -> dict[str, Fact]:
    """Return what the files beside a checkpoint, or its own name, say about it and its images.

    Our own `preprocessing.json` counts most, then `preprocessor_config.json` (or that part of
    `processor_config.json`), the `config.json` of Hugging Face or timm, torchvision's names, and
    the name of an architecture. A file that a repository of the hub lacks in the folder of the
    weights is read in its root. The path is that of the weights or of their folder.

    Raises:
      CheckpointError: A file is malformed, or a field has a wrong value.
    """
    folder = path if path.is_dir() else path.parent
    folders = [folder, *(p for p in folder.parents if p.parent.name == SNAPSHOTS)]
    file, config = _nearest(folders, "config.json")
    told = timm_facts(file, config) if is_timm(config) else model_facts(file, config)
    facts: Facts = {}
    for found in (torchvision_facts(path), told, _processor_facts(folders), _our_facts(folder)):
        if "image_size" in found:
            facts.pop("resize", None)  # that of another image size
        facts |= found
    return implied(facts) | facts


def _nearest(folders: list[Path], name: str) -> tuple[Path, dict[str, Any]]:
    """Return the first of the files with this name, and its content, empty if there is none."""
    file = next((f / name for f in folders if (f / name).is_file()), folders[0] / name)
    return file, read_object(file)


def _processor_facts(folders: list[Path]) -> Facts:
    file, content = _nearest(folders, "preprocessor_config.json")
    if not content:
        file, whole = _nearest(folders, "processor_config.json")
        content = read_field(file, whole, "image_processor", fields.json_object) or {}
    return image_facts(file, content)


def _our_facts(folder: Path) -> Facts:
    content = read_object(file := folder / "preprocessing.json")
    if unknown := sorted(content.keys() - OUR_FIELDS):
        raise CheckpointError(
            f"The fields of '{file}' should be among {', '.join(OUR_FIELDS)}, got {unknown[0]!r}. "
            "Mend or remove the file."
        )
    return read_fields(file, content, OUR_FIELDS)
