"""PNG, TIFF and JPEG written by hand: of any depth, and with any damage to their metadata."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

GRAY, RGB, GRAY_ALPHA, RGBA = 0, 2, 4, 6  # color types of PNG


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
