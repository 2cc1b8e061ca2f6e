"""Small images, and folders of them; PNG, TIFF and JPEG by hand, of any depth and damage."""

import hashlib
import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from optax_dtnh.finetune.dataset import open_data
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.images import decode
from optax_dtnh.finetune.preprocessing import Preprocessing

RED, BLUE = (255, 0, 0), (0, 0, 255)
# Pixels from 0 to 255, so that an image of one gray is recognized in a batch.
KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".avif": "AVIF"}
KINDS |= {".ppm": "PPM", ".jp2": "JPEG2000"}
KINDS |= {".none": "PNG", "no suffix": "PNG"}  # images with a suffix of no image, and without one
AS_IS = Preprocessing(image_size=8, resize=10, mean=(0, 0, 0), std=(1 / 255,) * 3)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(left=RED, right=BLUE, mode="RGB"):
    """A 16 x 8 image, its left half of one color and its right half of another."""
    image = Image.new("RGB", (16, 8), left)
    image.paste(right, (8, 0, 16, 8))
    return image.convert(mode)


def photo(size=(120, 90), seed=0):
    """A noisy gradient: a JPEG of it has data all over."""
    noise = np.random.default_rng(seed).integers(0, 60, (size[1], size[0], 3))
    ramp = np.linspace(0, 190, size[0])[None, :, None]
    return Image.fromarray((noise + ramp).astype(np.uint8))


def bomb():
    """A PNG of 70 bytes that says it has 400 million pixels."""
    small = encoded(Image.new("L", (1, 1)))
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + small[24:29]
    return small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]


def folder(root, **classes):
    """Write class folders of images, each of one gray of its own, and return the root as a str."""
    gray = 0
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(encoded(Image.new("L", (12, 9), gray)))
            gray += 1
    return str(root)


def spelled_out(pattern):
    """'a/{b,c}.png' is two names, as in a shell."""
    head, brace, rest = pattern.partition("{")
    inside, _, tail = rest.partition("}")
    parts = [head + choice + tail for choice in inside.split(",")] if brace else []
    return [name for part in parts for name in spelled_out(part)] or [pattern]


def write(root, *patterns):
    """Write images of a color that hangs on the name, and text where the suffix is of no image."""
    for name in (name for pattern in patterns for name in spelled_out(pattern)):
        path = root / name
        kind = KINDS.get(path.suffix or "no suffix" * path.name.isdigit())
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (12, 9), tuple(hashlib.sha256(os.fsencode(name)).digest()[:3]))
        path.write_bytes(encoded(image, kind) if kind else b"a,b\n1,2\n")
    return root


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path, at=None):
    """Change one byte of a file, in its middle if not told."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 255
    path.write_bytes(content)


def found(data):
    """What of some data is trained, tested and validated on and left out, in one line."""
    counts = f"{len(data.train)}+{len(data.test)}" + (f"+{len(data.val)}" if data.val else "")
    return f"{' '.join(data.classes)} {counts}" + "".join(f", {x}" for x in data.left_out)


def grays(source):
    return [np.asarray(decode(source[i]["image"]))[0, 0, 0].item() for i in range(len(source))]


def names(source):
    return [source[i]["name"] for i in range(len(source))]


def refused(match, data, **options):
    """Check that the data are refused for this reason, in two sentences."""
    with pytest.raises(UsageError, match=match) as raised:
        open_data(str(data), **{"train_per_class": 1, "seed": 0} | options)
    assert re.fullmatch(r"`--[a-z-]+` should [^\n]+, got [^\n]+\. [^\n]+\.", str(raised.value))


def exif(orientation):
    """Return EXIF data of one entry."""
    return struct.pack(">4sIHHHIHxxI", b"MM\0*", 8, 1, 274, 3, 1, orientation, 0)


def chunk(kind, content, damage=0):
    checksum = zlib.crc32(kind + content) ^ damage
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(values, color_type, *before, after=b"", bits=None):
    """Return a PNG with chunks before and after the pixels; fewer than 8 bits are packed."""
    height, width = values.shape[:2]
    bits = bits or values.dtype.itemsize * 8
    if bits < 8:
        wide = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(height, -1)
        values = np.packbits(wide, axis=1)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    parts = chunk(b"IHDR", header), *before, pixels, after, chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values, photometric=None, orientation=1, order="<", bits=None, extra=()):
    """Return a TIFF of one strip; `extra` holds entries of tag, type, count and value."""
    height, width, planes = (*values.shape, 1)[:3]
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    if bits == 12:
        wide = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 4:]
        pixels = np.packbits(wide).tobytes()
    bits = bits or values.dtype.itemsize * 8
    photometric = (1 if planes == 1 else 2) if photometric is None else photometric
    start = 8 + len(pixels)
    pool = struct.pack(f"{order}{planes}H", *[bits] * planes)
    depth = (258, 3, planes, {1: bits, 2: bits * 0x10001}.get(planes, start))
    entries = [(256, 4, 1, width), (257, 4, 1, height), depth, (259, 3, 1, 1)]
    entries += [(262, 3, 1, photometric), (273, 4, 1, 8), (274, 3, 1, orientation)]
    entries += [(277, 3, 1, planes), (278, 4, 1, height), (279, 4, 1, len(pixels))]
    entries += [(339, 3, 1, {"u": 1, "i": 2, "f": 3}[values.dtype.kind])]
    kept = [e for e in entries if e[0] not in {x[0] for x in extra}]
    directory = b"".join(_entry(order, *e) for e in sorted([*kept, *extra]))
    count = struct.pack(f"{order}H", len(kept) + len(extra))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start + len(pool))
    return head + pixels + pool + count + directory + bytes(4)


def _entry(order, tag, kind, count, value):
    if kind == 3 and count == 1:
        return struct.pack(f"{order}HHIHxx", tag, kind, count, value)
    return struct.pack(f"{order}HHII", tag, kind, count, value)


def jpeg(image, *segments):
    """Return a JPEG with segments of a marker and a content at its beginning."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, "JPEG", quality=100, subsampling=0
    )
    first = b"".join(struct.pack(">BBH", 255, m, len(c) + 2) + c for m, c in segments)
    return buffer.getvalue()[:2] + first + buffer.getvalue()[2:]
