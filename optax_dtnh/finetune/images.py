"""From encoded images to arrays: decoding, training crops, and the preprocessing of a checkpoint.

The protocol is that of DELTA (Li et al., 2019). A training image is resized to a square, cropped at
random and mirrored at random. A test image is resized to the size of the crop.
"""

import io
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from optax_dtnh.finetune.errors import UsageError

FILE_NAME = "preprocessing.json"
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
RESIZE_OF_CROP = 256 / 224


class Preprocessing(NamedTuple):
    """How an image becomes the input of a network.

    Attributes:
      image_size: Height and width of the input.
      resize: Height and width of a training image before it is cropped.
      mean: Mean of each channel, which is subtracted from values between 0 and 1.
      std: Standard deviation of each channel, which the difference is divided by.
      interpolation: PIL's name for how images are resized: bilinear, bicubic, ...
    """

    image_size: int = 224
    resize: int = 256
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"


def decode(encoded: bytes) -> Image.Image:
    """Return the image in RGB, rotated as its EXIF orientation says.

    An animation gives its first frame. Transparency is dropped. 16-bit gray keeps its high byte.
    """
    with Image.open(io.BytesIO(encoded)) as opened:
        return _upright_rgb(opened)


def check(encoded: bytes) -> None:
    """Raise whatever `decode` would, in less time: a JPEG is read, but hardly decoded."""
    with Image.open(io.BytesIO(encoded)) as opened:
        opened.draft(None, (1, 1))
        _upright_rgb(opened)


def reason(error: Exception, name: str) -> str:
    """Return in one line why an image cannot be read, with its file name for PIL's `BytesIO`."""
    text = " ".join(str(error).split()) or type(error).__name__
    # A function, because a replacement string would be a template: a name may hold backslashes.
    return re.sub(r"<_io\.BytesIO object at \w+>", lambda _: repr(Path(name).name), text)


def evaluation_image(encoded: bytes, preprocessing: Preprocessing) -> np.ndarray:
    """Return the whole image resized, float32 `[image_size, image_size, 3]`."""
    return _normalized(_resized(encoded, preprocessing.image_size, preprocessing), preprocessing)


def training_image(
    encoded: bytes, preprocessing: Preprocessing, rng: np.random.Generator
) -> np.ndarray:
    """Return a random crop of the resized image, mirrored half the time, as `evaluation_image`."""
    size = preprocessing.image_size
    left, top = rng.integers(preprocessing.resize - size + 1, size=2).tolist()
    image = _resized(encoded, preprocessing.resize, preprocessing)
    image = image.crop((left, top, left + size, top + size))
    return _normalized(ImageOps.mirror(image) if rng.random() < 0.5 else image, preprocessing)


def preprocessing_of(checkpoint: Path, **overrides: Any) -> Preprocessing:
    """Return the preprocessing in the files beside a checkpoint, else that of ImageNet.

    The first of our own `preprocessing.json`, timm's `config.json` and Hugging Face's
    `preprocessor_config.json` is read.

    Args:
      checkpoint: File of weights, or its folder.
      **overrides: Fields of `Preprocessing`; None overrides nothing. `image_size` without `resize`
        changes both in proportion.

    Raises:
      UsageError: A file beside the checkpoint is malformed, or the fields do not fit together.
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    for name, parse in _PARSERS.items():
        found = _parse_file(folder / name, parse) if (folder / name).is_file() else None
        if found is not None:
            break
    else:
        found = {}
    given = {field: value for field, value in overrides.items() if value is not None}
    if "image_size" in given:
        found.pop("resize", None)
    return _checked(found | given)


def _upright_rgb(opened: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I"):
        # PIL would clip at 255, which leaves a 16-bit image white.
        return Image.fromarray(np.uint8(np.asarray(upright) // 256 % 256)).convert("RGB")
    if upright.mode == "P":
        # PIL warns of a palette with transparency unless it is converted to RGBA first.
        upright = upright.convert("RGBA")
    return upright.convert("RGB")


def _resized(encoded: bytes, side: int, preprocessing: Preprocessing) -> Image.Image:
    resampling = Image.Resampling[preprocessing.interpolation.upper()]
    return decode(encoded).resize((side, side), resampling)


def _normalized(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    scaled = np.asarray(image, np.float32) / np.float32(255)
    mean, std = (np.asarray(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    return (scaled - mean) / std


def _ours(content: dict[str, Any]) -> dict[str, Any]:
    return content


def _timm(content: dict[str, Any]) -> dict[str, Any] | None:
    """Return None for a `config.json` of another library."""
    if "pretrained_cfg" not in content:
        return None
    config = content["pretrained_cfg"]
    fields = {field: config[field] for field in ("mean", "std", "interpolation") if field in config}
    return fields | ({"image_size": config["input_size"][-1]} if "input_size" in config else {})


def _hugging_face(content: dict[str, Any]) -> dict[str, Any]:
    renamed = {"image_mean": "mean", "image_std": "std"}
    fields = {ours: content[theirs] for theirs, ours in renamed.items() if theirs in content}
    if "resample" in content:
        fields["interpolation"] = INTERPOLATIONS[content["resample"]]
    size = content.get("crop_size", content.get("size"))
    if isinstance(size, dict):
        size = size["height"] if "height" in size else size["shortest_edge"]
    return fields | ({} if size is None else {"image_size": size})


_PARSERS = {FILE_NAME: _ours, "config.json": _timm, "preprocessor_config.json": _hugging_face}


def _parse_file(file: Path, parse: Any) -> dict[str, Any] | None:
    try:
        fields = parse(json.loads(file.read_text(encoding="utf-8")))
        if fields is not None:
            _checked(fields)
    # A file of another shape than expected fails in any of these ways.
    except (UsageError, ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        raise UsageError(
            f"The preprocessing beside a checkpoint should be readable, got '{file}' "
            f"({_one_line(error)}). Mend or remove the file."
        ) from error
    return fields


def _checked(fields: dict[str, Any]) -> Preprocessing:
    """Return the fields as a `Preprocessing`, with a `resize` that suits the image size."""
    if "image_size" in fields and "resize" not in fields:
        fields = fields | {"resize": round(fields["image_size"] * RESIZE_OF_CROP)}
    made = Preprocessing(**fields)
    made = made._replace(mean=_channels(made.mean), std=_channels(made.std))
    if not (_is_size(made.image_size) and _is_size(made.resize)):
        wrong = f"`image_size` and `resize` should be positive whole numbers, got {made}"
    elif made.resize < made.image_size:
        wrong = f"`resize` should be at least `image_size`, {made.image_size}, got {made.resize}"
    elif not all(map(math.isfinite, made.mean + made.std)) or min(made.std) <= 0:
        wrong = f"`mean` should be finite and `std` positive, got {made.mean} and {made.std}"
    elif made.interpolation not in INTERPOLATIONS.values():
        known = ", ".join(INTERPOLATIONS.values())
        wrong = f"`interpolation` should be one of {known}, got {made.interpolation!r}"
    else:
        return made
    raise UsageError(f"{wrong}. Change the option, or the file beside the checkpoint.")


def _channels(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _one_line(error: Exception) -> str:
    kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())
