"""From encoded images to arrays: decoding by content, training crops, and normalization."""

import io
import re
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from optax_dtnh.finetune.preprocessing import Preprocessing

# What Pillow decodes: not the formats that it can only name, nor the programs of PostScript.
Image.init()
FORMATS = tuple(sorted(Image.OPEN.keys() - {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}))
# Their files begin with nothing of their own, so that many a file looks like one.
UNMARKED = {"IM", "IPTC", "MCIDAS", "SPIDER", "TGA"}
ORIENTATION, SAMPLE_FORMAT, PHOTOMETRIC = 274, 339, 262  # tags of TIFF
# On the way to RGB: else Pillow warns of a transparent palette, and knows no premultiplied gray.
DETOURS = {"P": "RGBA", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}
T = Image.Transpose
TURNS = {  # what undoes an orientation; 1 is upright
    2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE,
    6: T.ROTATE_270, 7: T.TRANSVERSE, 8: T.ROTATE_90,
}  # fmt: skip
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
START_OF_SCAN, COMMENT = 0xDA, 0xFE
# Application segments that tell how to show the pixels: how they begin, and their least length.
NEEDED_SEGMENTS = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 14), 0xEE: (b"Adobe", 12)}
# Pillow warns of damaged metadata, and of half the size that it refuses: nobody has asked for it.
warnings.filterwarnings("ignore", module=r"PIL\.\w*Image")


def decode(encoded: bytes) -> Image.Image:
    """Return the image in RGB, rotated as its EXIF orientation says.

    A file of several images gives the first. Transparency is dropped. Damaged metadata are not
    read. Pixels of more than 8 bits are scaled as `_eight_bits` says.

    Raises:
      Exception: Pillow's decoders raise all kinds of exceptions for a damaged file.
    """
    return _tolerant(_decode, encoded)


def check(encoded: bytes) -> None:
    """Raise whatever `decode` would, in less time: a JPEG is read, but hardly decoded."""
    _tolerant(_check, encoded)


def is_image(path: str | Path) -> bool:
    """Return whether a file has the suffix, or begins with the content, of an image we decode.

    It may still be damaged, or a link to nothing. A folder is no image, nor is a pipe or a device,
    which is not opened.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        return False
    if Image.EXTENSION.get(path.suffix.lower()) in FORMATS:
        return True
    try:
        with path.open("rb") as file:
            if file.read(len(PNG)).startswith((PNG, JPEG)):
                return True  # even if damaged metadata keep Pillow from opening it
            Image.open(file, formats=[name for name in FORMATS if name not in UNMARKED]).close()
    except Image.DecompressionBombError:
        return True
    except Exception:  # what a file that is no image makes a plugin trip over
        return False
    return True


def reason(error: Exception, name: str) -> str:
    """Return in one line why an image cannot be read, with its file name for PIL's `BytesIO`."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.replace(", could be decompression bomb DOS attack.", "")
    # A function, because in a template the backslashes of a name would be escapes.
    return re.sub(r"<_io\.BytesIO object at \w+>", lambda _: repr(Path(name).name), text)


def evaluation_image(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """Return the whole image resized, float32 `[image_size, image_size, 3]`."""
    return _normalized(resized(image, preprocessing.image_size, preprocessing), preprocessing)


def training_image(
    image: Image.Image, preprocessing: Preprocessing, rng: np.random.Generator
) -> np.ndarray:
    """Return a random crop of the resized image, mirrored half the time, as `evaluation_image`."""
    size = preprocessing.image_size
    left, top = rng.integers(preprocessing.resize - size + 1, size=2).tolist()
    image = resized(image, preprocessing.resize, preprocessing)
    image = image.crop((left, top, left + size, top + size))
    return _normalized(ImageOps.mirror(image) if rng.random() < 0.5 else image, preprocessing)


def _tolerant(read: Callable[[bytes], Any], encoded: bytes) -> Any:
    """Read an image, and if that fails once more without its metadata."""
    try:
        return read(encoded)
    except Exception:
        bare = without_metadata(encoded)
        if bare == encoded:
            raise
    return read(bare)


def _decode(encoded: bytes) -> Image.Image:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
        image = _rgb(opened)
        try:
            turn = TURNS.get(opened.getexif().get(ORIENTATION, 1))
        except Exception:  # what damaged metadata make Pillow trip over
            turn = None
    return image if turn is None else image.transpose(turn)


def _check(encoded: bytes) -> None:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
        opened.draft(None, (1, 1))
        _rgb(opened)


def _rgb(opened: Image.Image) -> Image.Image:
    wide_color = any(";16" in str(tile) for tile in getattr(opened, "tile", ()))
    opened.load()
    if opened.mode.startswith(("I", "F")):
        return Image.fromarray(_gray(opened)).convert("RGB")
    image = opened.convert(DETOURS.get(opened.mode)).convert("RGB")
    if wide_color and 0 < np.asarray(image).max() < 16:
        raise ValueError("its colors are 12-bit numbers in 16 bits, and Pillow reads the upper 8")
    return image


def _gray(wide: Image.Image) -> np.ndarray:
    """Return gray pixels of more than 8 bits as 8 bits."""
    tags, values = getattr(wide, "tag_v2", {}), np.asarray(wide)
    if wide.mode == "I" and tags.get(SAMPLE_FORMAT, (2,))[0] == 1:
        values = values.view(np.uint32)  # which Pillow holds as signed
    gray = _eight_bits(values)
    return 255 - gray if tags.get(PHOTOMETRIC) == 0 else gray  # 0 is white


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Scale numbers by what they span.

    Floats up to 1 are multiplied by 255. All other numbers keep the upper 8 of 8, 12, 16 or 32
    bits, whichever is the least that holds the largest number.
    """
    low, high = values.min(), values.max()
    if not 0 <= low <= high < 2**32:  # NaN included
        raise ValueError(f"its pixels should be finite numbers from 0, got {low} to {high}")
    if values.dtype.kind == "f" and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    if values.dtype.kind == "f" and high < 2:
        raise ValueError(f"its pixels should reach 1 or 255, got {high}, which is of neither scale")
    bits = next(bits for bits in (8, 12, 16, 32) if high < 2**bits)
    return (values // 2 ** (bits - 8)).astype(np.uint8)


def resized(image: Image.Image, side: int, preprocessing: Preprocessing) -> Image.Image:
    """Return the whole image as a square of this side, equal if it already is one."""
    return image.resize((side, side), Image.Resampling[preprocessing.interpolation.upper()])


def _normalized(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    scaled = np.asarray(image, np.float32) / np.float32(1 / preprocessing.rescale)
    mean, std = (np.asarray(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    return (scaled - mean) / std


# --- PNG and JPEG without their metadata, for damaged metadata make Pillow refuse good pixels


def without_metadata(encoded: bytes) -> bytes:
    """Return a PNG or JPEG with its pixels and orientation alone, and any other file as it is."""
    if encoded.startswith(PNG):
        return _png(encoded)
    return _jpeg(encoded) if encoded.startswith(JPEG) else encoded


def _png(encoded: bytes) -> bytes:
    kept, start = [PNG], len(PNG)
    while start < len(encoded):
        end = start + 12 + int.from_bytes(encoded[start : start + 4])
        chunk = encoded[start:end]
        if chunk[4:8] in PIXEL_CHUNKS or _is_sound_exif(chunk):
            kept.append(chunk)
        start = end
    return b"".join(kept)


def _is_sound_exif(chunk: bytes) -> bool:
    return chunk[4:8] == b"eXIf" and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def _jpeg(encoded: bytes) -> bytes:
    kept, start = [encoded[:2]], 2
    while encoded[start : start + 1] == b"\xff" and encoded[start + 1] != START_OF_SCAN:
        end = start + 2 + int.from_bytes(encoded[start + 2 : start + 4])
        if _is_needed(encoded[start + 1], encoded[start + 4 : end]):
            kept.append(encoded[start:end])
        start = end
    return b"".join([*kept, encoded[start:]])


def _is_needed(marker: int, content: bytes) -> bool:
    if marker in NEEDED_SEGMENTS:
        beginning, length = NEEDED_SEGMENTS[marker]
        return content.startswith(beginning) and len(content) >= length
    return marker != COMMENT and not 0xE0 <= marker <= 0xEF
