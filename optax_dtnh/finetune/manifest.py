"""The list of the images that a model was trained on, in the format of `sha256sum`."""

import re
from collections.abc import Mapping

ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def text(digests: Mapping[str, bytes]) -> str:
    """Return a line for every name of an image, with the SHA-256 of its content."""
    return "".join(_line(name, digest) for name, digest in digests.items())


def digests(text: bytes) -> frozenset[bytes]:
    """Return the contents that such a text lists, encoded."""
    found = re.findall(rb"^\\?([0-9a-f]{64})  ", text, re.MULTILINE)
    return frozenset(bytes.fromhex(digest.decode()) for digest in found)


def _line(name: str, digest: bytes) -> str:
    escaped = re.sub(r"[\\\n\r]", lambda found: ESCAPES[found[0]], name)
    return f"{'' if escaped == name else chr(92)}{digest.hex()}  {escaped}\n"
