"""Does DTNH help a regularizer, by source and target? The paper's experiments, cell by cell.

    python -m benchmarks.paper --list                       # every cell, and what it still needs
    python -m benchmarks.paper --data caltech256=DIR --run  # those that have all they need
    python -m benchmarks.paper                              # the table so far

A cell is one run of `python -m optax_dtnh.finetune train`, in a process and a folder of its own,
for each source, target, method and seed. Stop it whenever you like, and run the same command again
to resume; finished cells are skipped. To use several GPUs, give each process other cells of one
--out. What follows `--` goes to every cell:

    python -m benchmarks.paper --run --only imagenet-resnet50 cifar10 seed0 -- --workers 8

The paper's own tables could not be read: which of the settings are documented and which are chosen
stands in benchmarks/paper/contents.py and under every table. Nothing of the table was run by
this project, which has none of the data.
"""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.harness.command import Question, command, make_folder, parser_of
from benchmarks.paper import report, runs
from benchmarks.paper.cells import Asset, Cell, Table, placed, selected
from benchmarks.paper.contents import TABLE
from benchmarks.paper.state import State, state, summary, text
from optax_dtnh.finetune.errors import UsageError

# Every cell has its own; others may be given after `--`.
OWN = ("--source", "--data", "--method", "--seed", "--out")


def main(argv: Sequence[str] | None = None) -> int:
    """List, run or report, as the arguments say; return 1 if a cell fails."""
    parser = parser_of(QUESTION)
    options = parser.parse_args(argv)
    if not (options.list or options.run):
        return command(QUESTION, argv)
    try:
        table, cells = chosen(options)
        states = {cell: state(cell, table.arguments, options.out) for cell in cells}
    except UsageError as error:
        parser.error(str(error))
    if options.list:
        print(text(states))
        return 0
    make_folder(parser, options.out)
    try:
        return run(table, states, options)
    except KeyboardInterrupt:
        parser.exit(130, "\nStopped. Run the same command again to resume.\n")


def add_options(parser: ArgumentParser) -> None:
    """Add what is done, with which cells."""
    act: Callable[..., Any] = parser.add_mutually_exclusive_group().add_argument
    act("--list", action="store_true", help="Show every cell and what it still needs.")
    act("--run", action="store_true", help="Run the cells that have all they need.")
    add: Callable[..., Any] = parser.add_argument
    only = "Only the cells of these sources, targets, methods or seeds (seed0, seed1, ...)."
    add("--only", nargs="+", default=[], metavar="NAME", help=only)
    place = {"action": "append", "default": [], "type": _place}
    add("--source", metavar="NAME=FILE", help="Where a checkpoint is: a file or hf:...", **place)
    add("--data", metavar="NAME=DIR", help="Where a data set is: a folder or tfds:...", **place)
    rest = "Arguments of optax_dtnh.finetune train, for all cells."
    add("rest", nargs="*", metavar="-- ...", help=rest)


def _place(given: str) -> tuple[str, str]:
    name, equals, where = given.partition("=")
    if not (name and equals and where):
        raise ArgumentTypeError(f"it should have the form NAME=PLACE, got {given!r}")
    return name, where


def chosen(options: Namespace) -> tuple[Table, list[Cell]]:
    """Return the table as the options want it, and the cells that they name."""
    own = [word for word in options.rest if word.split("=")[0] in OWN]
    if own:
        raise UsageError(
            f"Arguments after -- should be the same for all cells, got {own[0]}. "
            "Give it before the --, or leave it out."
        )
    sources = _known("source", options.source, TABLE.sources)
    data = _known("data", options.data, TABLE.data)
    table = placed(TABLE, options.out, sources, data)._replace(arguments=options.rest)
    return table, selected(table, options.only)


def _known(
    option: str, places: Sequence[tuple[str, str]], assets: Sequence[Asset]
) -> dict[str, str]:
    names = [asset.name for asset in assets]
    for name, _ in places:
        if name not in names:
            raise UsageError(
                f"`--{option}` should name one of {', '.join(names)}, got {name}. "
                "Correct the name before the =."
            )
    return dict(places)


def run(table: Table, states: Mapping[Cell, State], options: Namespace) -> int:
    """Run the cells that can be run, and return 1 if one of them failed."""
    ready = [cell for cell, at in states.items() if not (at.finished or at.missing)]
    failed = runs.run(ready, table.arguments, options.out)
    print(f"\nBefore this run: {summary(states)} --list says what is lacking.")
    if failed:
        print(f"{len(failed)} failed: {', '.join(map(str, failed))}")
    return 1 if failed else 0


def measure(options: Namespace) -> report.Results:
    """Return what the finished cells came to."""
    table, cells = chosen(options)
    results = report.results(table, cells, options.out)
    if not results["runs"]:
        raise UsageError(
            f"No cell in '{options.out}' is finished. See what is ready with --list, and run it "
            "with --run."
        )
    return results


QUESTION = Question("paper", __doc__, measure, report.text, options=add_options)

if __name__ == "__main__":
    sys.exit(main())
