"""The arguments of `benchmarks.paper`."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.cells import Table, placed
from optax_dtnh.finetune import options as tuning
from optax_dtnh.finetune.options import Parser

MAX_SEEDS = 100
# Every cell has its own; the others may be given after `--`.
OWN = ("--source", "--data", "--method", "--seed", "--out", "--evaluate", "--predict")


def parser(description: str | None) -> Parser:
    """Return the parser of the command."""
    options = Parser(
        prog="python -m benchmarks.paper",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    acts = options.add_mutually_exclusive_group(required=True)
    act: Callable[..., Any] = acts.add_argument
    act("--list", action="store_true", help="show every cell and what it still needs")
    act("--run", action="store_true", help="run the cells that have all they need")
    act("--report", action="store_true", help="print, write and plot the table so far")
    _add_cells(options.add_argument)
    out = Path("out/paper")
    add: Callable[..., Any] = options.add_argument
    add("--budget", type=_minutes, default=math.inf, metavar="MINUTES", help="then stop --run")
    add("--out", type=Path, default=out, metavar="DIR", help=f"folder (default: {out})")
    add("rest", nargs="*", metavar="-- ...", help="arguments of optax_dtnh.finetune, for all cells")
    return options


def _add_cells(add: Callable[..., Any]) -> None:
    add("--only", nargs="+", default=[], metavar="NAME", help="sources, targets, methods or seedN")
    place = {"action": "append", "default": [], "type": _place}
    add("--source", metavar="NAME=FILE", help="where a checkpoint is: a file or hf:...", **place)
    add("--data", metavar="NAME=DIR", help="where a data set is: a folder or tfds:...", **place)
    add("--methods", nargs="+", choices=tuning.METHODS, metavar="METHOD", help="of the columns")
    add("--seeds", type=_seeds, metavar="N", help="number of seeds (default: 5)")


def changed(table: Table, chosen: argparse.Namespace) -> Table:
    """Return the table as the arguments want it.

    Raises:
      ValueError: A name is not in the table, or an argument for all cells is of one cell.
    """
    sources = _known("source", dict(chosen.source), [x.name for x in table.sources])
    data = _known("data", dict(chosen.data), [x.name for x in table.data])
    _refuse_own(chosen.rest)
    return placed(table, chosen.out, sources, data)._replace(
        methods=chosen.methods or table.methods,
        seeds=table.seeds if chosen.seeds is None else range(chosen.seeds),
        arguments=(*table.arguments, *chosen.rest),
    )


def _known(option: str, places: dict[str, str], names: Sequence[str]) -> Mapping[str, str]:
    unknown = sorted(places.keys() - set(names))
    if unknown:
        raise ValueError(
            f"`--{option}` should name one of {', '.join(names)}, got {unknown[0]}. "
            "Correct the name before the =."
        )
    return places


def _refuse_own(rest: Sequence[str]) -> None:
    own = [word for word in rest if word.split("=")[0] in OWN]
    if own:
        raise ValueError(
            f"Arguments after -- should be the same for all cells, got {own[0]}. "
            "Give it before the --, or leave it out."
        )


def _place(given: str) -> tuple[str, str]:
    name, equals, where = given.partition("=")
    if not (name and equals and where):
        raise argparse.ArgumentTypeError(f"it should have the form NAME=PLACE, got {given!r}")
    return name, where


def _seeds(given: str) -> int:
    if not (given.isdecimal() and 1 <= int(given) <= MAX_SEEDS):
        raise argparse.ArgumentTypeError(
            f"it should be a whole number from 1 to {MAX_SEEDS}, got {given!r}"
        )
    return int(given)


def _minutes(given: str) -> float:
    try:
        minutes = float(given)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"it should be a number of minutes > 0, got {given!r}")
    return minutes
