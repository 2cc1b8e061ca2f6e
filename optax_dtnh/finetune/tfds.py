"""Prepared data sets of TensorFlow Datasets, read without tensorflow."""

import logging
import re
import shlex
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import Parts

PREFIX = "tfds:"
NAME = re.compile(r"\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?")
TRAIN, TESTS = "train", ("test", "validation")
FORMAT = "array_record"
OTHER = "Choose another data set."


@dataclass(frozen=True, repr=False)
class TfdsSource:
    """One split, called like "mnist train", with encoded images."""

    split: str
    records: Any

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # TFDS returns None for an example of a truncated file.
        record = self.records[index] or {}
        image, label = record.get("image"), record.get("label")
        if image is None or label is None:
            raise UsageError(f"{self.name(index)} is missing in its file")
        return {"image": bytes(image), "label": int(label), "name": self.name(index)}

    def name(self, index: int) -> str:
        """Return the name of an image in messages."""
        return f"{self.split}[{index}]"


def open_tfds(name: str, data_dir: str | None) -> Parts:
    """Open `NAME[/CONFIG][:VERSION]`, which has been prepared; nothing is downloaded."""
    import tensorflow_datasets as tfds

    logging.disable(logging.WARNING)  # which says what an error of ours says
    try:
        builder = _builder(tfds, name, data_dir)
    finally:
        logging.disable(logging.NOTSET)
    classes, splits = _classes(tfds, builder, name), builder.info.splits
    present = [split for split in (TRAIN, *TESTS) if split in splits]
    read = partial(builder.as_data_source, decoders={"image": tfds.decode.SkipDecoding()})
    sources = {split: TfdsSource(f"{name} {split}", read(split)) for split in present}
    used = [split for split in present if _is_labeled(sources[split])]
    if TRAIN not in used:
        _refuse("with a split `train` with labels", name, f" with {_listed(splits)}", OTHER)
    left = tuple(f"split {x} {splits[x].num_examples}" for x in splits if x not in used)
    _, test, val = ([sources[split] for split in used] + [None, None])[:3]
    return Parts(sources[TRAIN], test, classes, left, val=val)


def _refuse(wanted: str, name: str, found: str, mend: str) -> NoReturn:
    raise UsageError(f"`--data` should be a data set {wanted}, got {PREFIX}{name}{found}. {mend}")


def _builder(tfds: Any, name: str, data_dir: str | None) -> Any:
    # TFDS would look for a name with a namespace, like `huggingface:x`, on the network.
    if not NAME.fullmatch(name):
        _refuse("of the form NAME[/CONFIG][:VERSION]", name, "", "Check the name.")
    where = "" if data_dir is None else f" --data_dir={shlex.quote(data_dir)}"
    command = f"tfds build {name} --file_format={FORMAT}{where}"
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format=FORMAT)
    except tfds.core.DatasetNotFoundError:
        mend = "Check the name, and the folder of data sets if it is your own."
        _refuse("that TFDS knows", name, "", mend)
    # TFDS has no common exception for damaged files, other formats, configs and versions.
    except Exception as error:
        mend = f"Check its config and version, or prepare it again with `{command} --overwrite`."
        _refuse("that TFDS can open", name, f" ({_reason(error)})", mend)
    if not builder.is_prepared():
        _refuse(
            "that has been prepared",
            name,
            f", which is not in '{builder.data_dir}'",
            f"Prepare it with `{command}`, which downloads it and needs tensorflow (`pip install "
            "tensorflow`); reading it afterwards does not.",
        )
    return builder


def _classes(tfds: Any, builder: Any, name: str) -> tuple[str, ...]:
    features = builder.info.features
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    if not all(key in features and isinstance(features[key], kinds[key]) for key in kinds):
        wanted = "whose examples have an `image` and a class `label`"
        _refuse(wanted, name, f" with {_listed(features)}", OTHER)
    return tuple(features["label"].names)


def _is_labeled(source: TfdsSource) -> bool:
    """Return False for the test split of a contest, whose labels are all -1."""
    for index in range(len(source)):
        try:
            if source[index]["label"] >= 0:
                return True
        except (UsageError, ValueError, RuntimeError, OSError):
            return True  # the check of all images reports one that cannot be read
    return False


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _reason(error: BaseException) -> str:
    """Return the first sentence of an error, without the arguments that TFDS prepends."""
    return str(error).split("\n")[0].split('}": ')[-1].split(". ")[0].rstrip(".")
