"""Prepared data sets of TensorFlow Datasets, with random access and without tensorflow."""

import logging
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from .examples import Parts

PREFIX = "tfds:"
NAME = re.compile(r"\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?")
TRAIN, TESTS = "train", ("test", "validation")
FORMAT = "array_record"


@dataclass(frozen=True, repr=False)
class TfdsSource:
    """One split, its images still encoded.

    Attributes:
      split: As messages call it, like "mnist train".
      records: TFDS's random access to it, with the images left encoded.
    """

    split: str
    records: Any

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # Of a truncated file, TFDS gives examples of None without an error.
        record = self.records[index] or {}
        image, label = record.get("image"), record.get("label")
        if image is None or label is None:
            raise ValueError(f"{self.name(index)} is missing in its file")
        return {"image": bytes(image), "label": int(label), "name": self.name(index)}

    def name(self, index: int) -> str:
        """Return how messages call an image."""
        return f"{self.split}[{index}]"


def open_tfds(name: str, data_dir: str | None) -> Parts:
    """Open a data set that is prepared already; nothing is downloaded.

    Args:
      name: `NAME[/CONFIG][:VERSION]`.
      data_dir: Folder of TFDS's data sets; None for TFDS's own default.

    Raises:
      ImportError: TFDS is not installed.
      FileNotFoundError: The data set is not prepared.
      ValueError: TFDS does not know it, or it is not one of labeled images.
    """
    builder = _builder(name, data_dir)
    _refuse_unprepared(builder, name, data_dir)
    classes = _classes(builder, name)
    labeled = {
        split: source
        for split in (TRAIN, *TESTS)
        if split in builder.info.splits and _is_labeled(source := _source(builder, split, name))
    }
    if TRAIN not in labeled:
        raise ValueError(
            f"`--data` should be a data set with a split `train` with labels, got {PREFIX}{name} "
            f"with {_listed(builder.info.splits)}. Choose another data set."
        )
    tests = [labeled[split] for split in TESTS if split in labeled]
    return Parts(labeled[TRAIN], tests[0] if tests else None, classes)


def _builder(name: str, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"`--data` should be a folder where TFDS is not installed, got {PREFIX}{name}. "
            "Install it with `pip install 'optax-dtnh[data]'`."
        ) from error
    # A name with a namespace, like `huggingface:x`, would be looked for on the network.
    if not NAME.fullmatch(name):
        _refuse_name(name, "which is not of the form NAME[/CONFIG][:VERSION]")
    try:
        with _quiet():
            return tfds.builder(name, data_dir=data_dir, file_format=FORMAT)
    except tfds.core.DatasetNotFoundError:
        _refuse_name(name, "which it does not")
    # Damaged files, other formats, configs and versions: TFDS has no exception in common for them.
    except Exception as error:
        raise ValueError(
            f"`--data` should be a data set that TFDS can open, got {PREFIX}{name} "
            f"({_reason(error)}). Check its config and version, or prepare it again with "
            f"`{_build_command(name, data_dir)} --overwrite`."
        ) from error


def _refuse_name(name: str, reason: str) -> NoReturn:
    raise ValueError(
        f"`--data` should be a folder or {PREFIX}NAME of a data set that TFDS knows, got "
        f"{PREFIX}{name}, {reason}. Check the name, and the folder of data sets if it is your own."
    )


def _refuse_unprepared(builder: Any, name: str, data_dir: str | None) -> None:
    with _quiet():
        if builder.is_prepared():
            return
    raise FileNotFoundError(
        f"`--data` should be a data set that is prepared already, got {PREFIX}{name}, of which "
        f"there is nothing in '{builder.data_dir}'. Prepare it with "
        f"`{_build_command(name, data_dir)}`, which downloads it and needs tensorflow "
        "(`pip install tensorflow`); reading it afterwards does not."
    )


def _build_command(name: str, data_dir: str | None) -> str:
    where = "" if data_dir is None else f" --data_dir={shlex.quote(data_dir)}"
    return f"tfds build {name} --file_format={FORMAT}{where}"


def _classes(builder: Any, name: str) -> tuple[str, ...]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    if not all(key in features and isinstance(features[key], kinds[key]) for key in kinds):
        raise ValueError(
            f"`--data` should be a data set whose examples have an `image` and a class `label`, "
            f"got {PREFIX}{name} with {_listed(features)}. Choose another data set."
        )
    if features["label"].num_classes < 2:
        raise ValueError(
            f"`--data` should have at least 2 classes, got {PREFIX}{name} with "
            f"{features['label'].num_classes}. Choose another data set."
        )
    return tuple(features["label"].names)


def _source(builder: Any, split: str, name: str) -> TfdsSource:
    import tensorflow_datasets as tfds

    encoded = {"image": tfds.decode.SkipDecoding()}
    return TfdsSource(f"{name} {split}", builder.as_data_source(split, decoders=encoded))


def _is_labeled(source: TfdsSource) -> bool:
    """Tell a split from one of a contest, whose labels are all -1."""
    try:
        return source[0]["label"] >= 0
    # What cannot be read is reported with the other images that cannot.
    except (ValueError, RuntimeError):
        return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep TFDS from logging that a data set is not prepared, of which there is an error."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _reason(error: BaseException) -> str:
    """Return the first sentence of an error, without the arguments that TFDS puts before it."""
    return str(error).split("\n")[0].split('}": ')[-1].split(". ")[0].rstrip(".")
