"""Command lines whose mistakes cost one line: bad values are refused before anything is written."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

MAX_SEEDS = 100
MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6


class OneLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line on stderr, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def parser(prog: str, description: str | None, weights: list[float], out: str) -> OneLineParser:
    """Return a parser of `--seeds`, `--weights` and `--out`.

    Args:
      prog: The command, for the help and errors.
      description: Shown by `--help` as it is.
      weights: Default of `--weights`.
      out: Default of `--out`.
    """
    options = OneLineParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add: Callable[..., Any] = options.add_argument
    add("--seeds", type=_seeds, default=20, metavar="N", help="number of seeds (default: 20)")
    shown = " ".join(f"{weight:g}" for weight in weights)
    help_weights = f"weights of the regularizers (default: {shown})"
    add("--weights", type=_weight, nargs="+", default=weights, metavar="W", help=help_weights)
    add("--out", type=Path, default=Path(out), metavar="DIR", help=f"folder (default: {out})")
    return options


def parse(options: OneLineParser, argv: list[str] | None) -> argparse.Namespace:
    """Return the options, weights sorted, with the folder `out` created and writable.

    `sources`, a folder in it for the source networks, is created as well.
    """
    chosen = options.parse_args(argv)
    if len(set(chosen.weights)) < len(chosen.weights):
        options.error(
            f"`--weights` should be different numbers, got {_plain(chosen.weights)}. "
            "Give every weight once."
        )
    chosen.weights = sorted(chosen.weights)
    chosen.sources = chosen.out / "sources"
    make_folder(options, chosen.out)
    make_folder(options, chosen.sources)
    return chosen


def _seeds(given: str) -> int:
    try:
        seeds = int(given)
    except ValueError:
        seeds = 0
    if not 1 <= seeds <= MAX_SEEDS:
        raise argparse.ArgumentTypeError(
            f"`--seeds` should be a whole number from 1 to {MAX_SEEDS}, got {given!r}. "
            "Intervals need at least 2."
        )
    return seeds


def _weight(given: str) -> float:
    try:
        weight = float(given)
    except ValueError:
        weight = math.nan
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise argparse.ArgumentTypeError(
            f"`--weights` should be numbers from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, got {given!r}. "
            "Fine-tuning, which always runs, is the weight 0."
        )
    return weight


def make_folder(options: OneLineParser, out: Path) -> None:
    """Create the folder `--out`, or one in it; exit where that or writing to it is impossible."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        writable = os.access(out, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        options.error(
            f"`--out` should be a folder that can be written to, got '{out}'. "
            "Name another folder; it is created if it does not exist."
        )


def _plain(weights: list[float]) -> str:
    return " ".join(f"{weight:g}" for weight in weights)
