"""PNG and JPEG without their metadata, for damaged metadata make Pillow refuse good pixels."""

import zlib

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
START_OF_SCAN, COMMENT = 0xDA, 0xFE
# Application segments that tell how to show the pixels: how they begin, and their least length.
NEEDED_SEGMENTS = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 14), 0xEE: (b"Adobe", 12)}


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
