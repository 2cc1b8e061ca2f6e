"""Two sorts of text that come with every Python: its manual, and code of its library."""

import importlib
import inspect
from pydoc_data.topics import topics

import numpy as np

MODULES = "argparse ast configparser dataclasses difflib inspect pickle subprocess tarfile typing"
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
SIZES = {"manual": (16000, 800), "code": (128, 800)}  # pieces to train on and to test


def texts(length: int, seed: int) -> list[np.ndarray]:
    """Return pieces `[n, length]` of the manual and of code, each to train on and to test."""
    code = (inspect.getsource(importlib.import_module(name)) for name in MODULES.split())
    numbers = {character: i for i, character in enumerate(CHARACTERS)}
    found, rng = [], np.random.default_rng(seed)
    for parts, sizes in zip((topics.values(), code), SIZES.values(), strict=True):
        text = np.array([numbers[c] for c in "\n".join(parts) if c in numbers], np.int32)
        for part, size in zip(np.split(text, [9 * len(text) // 10]), sizes, strict=True):
            starts = rng.integers(len(part) - length, size=(size, 1))
            found.append(part[starts + np.arange(length)])
    return found
