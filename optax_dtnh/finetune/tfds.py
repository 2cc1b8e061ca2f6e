"""Prepared data sets of TensorFlow Datasets, read without tensorflow."""

import logging
import re
import shlex
from functools import partial
from typing import Any, NoReturn

from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import Found, Image, Request
from optax_dtnh.finetune.splits import SPELLINGS, TRAIN

PREFIX = "tfds:"
NAME = re.compile(r"\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?")
FORMAT = "array_record"
OTHER = "Choose another data set."


def open_tfds(request: Request) -> Found:
    """Open `NAME[/CONFIG][:VERSION]`, which has been prepared; nothing is downloaded."""
    import tensorflow_datasets as tfds

    name = request.data.removeprefix(PREFIX)
    logging.disable(logging.WARNING)  # which says what an error of ours says
    try:
        builder = _builder(tfds, name, request.data_dir)
    finally:
        logging.disable(logging.NOTSET)
    classes, splits = _classes(tfds, builder, name), builder.info.splits
    read = partial(builder.as_data_source, decoders={"image": tfds.decode.SkipDecoding()})
    found = {x: _images(read(x), f"{name} {x}", x, classes) for x in SPELLINGS if x in splits}
    used = [split for split, images in found.items() if _is_labeled(images)]
    if TRAIN not in used:
        _refuse("with a split `train` with labels", name, f" with {_listed(splits)}", OTHER)
    left = tuple(f"split {x} {splits[x].num_examples}" for x in splits if x not in used)
    return Found([image for split in used for image in found[split]], classes, left)


def _images(records: Any, title: str, split: str, classes: tuple[str, ...]) -> list[Image]:
    names = (f"{title}[{index}]" for index in range(len(records)))
    return [
        Image(split, x, "", partial(_read, records, i, x, classes)) for i, x in enumerate(names)
    ]


def _read(records: Any, index: int, name: str, classes: tuple[str, ...]) -> tuple[bytes, str]:
    # TFDS returns None for an example of a truncated file.
    record = records[index] or {}
    image, label = record.get("image"), record.get("label")
    if image is None or label is None:
        raise UsageError(f"{name} is missing in its file")
    return bytes(image), classes[label] if label >= 0 else ""


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


def _is_labeled(images: list[Image]) -> bool:
    """Return False for the test split of a contest, whose labels are all -1."""
    for image in images:
        try:
            if image.read()[1]:
                return True
        except (UsageError, ValueError, RuntimeError, OSError):
            return True  # the check of all images reports one that cannot be read
    return False


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _reason(error: BaseException) -> str:
    """Return the first sentence of an error, without the arguments that TFDS prepends."""
    return str(error).split("\n")[0].split('}": ')[-1].split(". ")[0].rstrip(".")
