"""The paper's experiments, cell by cell: sources x targets x methods x seeds, resumable.

    python -m benchmarks.paper --list                       # every cell, and what it still needs
    python -m benchmarks.paper --data caltech256=DIR --run  # those that have all they need
    python -m benchmarks.paper --report                     # the table so far

A cell is one run of `python -m optax_dtnh.finetune`, in a process and a folder of its own. Stop it
whenever you like: the same command goes on, and finished cells are skipped. Several processes can
share one --out, say one for each GPU. What follows `--` goes to every cell:

    python -m benchmarks.paper --run --only imagenet-resnet50 cifar10 --budget 60 -- --workers 8

The paper's own tables could not be read: which of the settings are documented and which are chosen
stands in benchmarks/paper/contents.py and under every table. Nothing of the table was run by
this project, which has none of the data.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from benchmarks.harness.options import make_folder
from benchmarks.paper import commands, options
from benchmarks.paper.cells import Table, selected
from benchmarks.paper.commands import States
from benchmarks.paper.contents import TABLE
from benchmarks.paper.state import state


def main(argv: Sequence[str] | None = None) -> None:
    """List, run or report, as the arguments say; a mistake costs one line."""
    parser = options.parser(__doc__)
    chosen = parser.parse_args(argv)
    try:
        table, states = _found(chosen)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if chosen.list:
        return commands.show(states, chosen.out)
    make_folder(parser, chosen.out)
    if chosen.report:
        return commands.report(table, states, chosen.out)
    try:
        well = commands.run(table, states, chosen.out, chosen.budget)
    except KeyboardInterrupt:
        parser.exit(130, "\nStopped. The same command goes on where this one was.\n")
    return None if well else parser.exit(1)


def _found(chosen: Namespace) -> tuple[Table, States]:
    """Return the table that is asked for, and how far its cells are."""
    table = options.changed(TABLE, chosen)
    cells = selected(table, chosen.only)
    states = {cell: state(cell, table.arguments, chosen.out) for cell in cells}
    if chosen.report and not any(at.finished for at in states.values()):
        raise ValueError(
            f"`--report` should have finished cells to tell of, got none in '{chosen.out}'. "
            "See what is ready with --list, and run it with --run."
        )
    return table, states


if __name__ == "__main__":
    main(sys.argv[1:])
