"""How a setting becomes an option of the command: its type, its heading and its help."""

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import field
from typing import Any

Parse = Callable[[str], Any]
GROUPS = ("files", "method", "training", "images", "machine")


def _numeric(what: str, kind: Parse, holds: Callable[[Any], bool]) -> Parse:
    """Return a type of `argparse`: plain numbers for which `holds` is true."""

    def parse(given: str) -> Any:
        try:
            value = kind(given) if re.fullmatch(r"[0-9.eE+-]+", given) else math.nan
        except ValueError:
            value = math.nan
        if not holds(value):
            raise argparse.ArgumentTypeError(f"it should be {what}, got {given!r}")
        return value

    return parse


number = _numeric("a number >= 0", float, lambda x: 0 <= x < math.inf)
finite = _numeric("a number", float, math.isfinite)
positive = _numeric("a number > 0", float, lambda x: 0 < x < math.inf)
share = _numeric("a number from 0 and below 1", float, lambda x: 0 <= x < 1)
fraction = _numeric("a number above 0 and below 1", float, lambda x: 0 < x < 1)
whole = _numeric("a whole number from 0 to 4294967295", int, lambda n: 0 <= n < 2**32)
count = _numeric("a whole number from 1 to 4294967295", int, lambda n: 1 <= n < 2**32)
several = _numeric("a whole number from 2 to 4294967295", int, lambda n: 2 <= n < 2**32)


def option(group: str, text: str, default: Any = None, **more: Any) -> Any:
    """Return a field that is also an option of the command, under the heading `group`.

    False makes the option a switch, () a list of names; other defaults are added to the help.
    """
    if default is False:
        more["action"] = "store_true"
    elif default == ():
        more |= {"nargs": "+", "metavar": "NAME"}
    elif default is not None:
        text = f"{text.removesuffix('.')} (default: {default})."
    if kind := more.get("type"):
        more["metavar"] = "N" if kind in (whole, count) else "X"
    more |= {"help": text, "default": default}
    return field(default=default, metadata={"group": group, "argument": more})
