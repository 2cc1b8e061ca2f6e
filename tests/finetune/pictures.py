"""Small images, and folders of them."""

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
from optax_dtnh.finetune.images import Preprocessing, decode

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
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


def found(data):
    """What of some data is trained on, tested on and left out, in one line."""
    counts = f"{len(data.train)}+{len(data.test)}"
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
