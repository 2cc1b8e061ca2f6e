"""One question as a command: options, measurement, record, tables, figure, exit code.

Every benchmark has the same three options::

    python -m benchmarks.QUESTION              # writes to out/QUESTION
    python -m benchmarks.QUESTION --out DIR
    python -m benchmarks.QUESTION --record     # writes to benchmarks/results

`--record` refuses a working tree with changes: the commit in a record has to tell how it was made.
"""

import argparse
import os
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from benchmarks.harness import record
from benchmarks.harness.record import Results

RESULTS = record.ROOT / "benchmarks" / "results"


class Question(NamedTuple):
    """What a benchmark asks, and how it answers.

    Attributes:
      name: Of the module in `benchmarks`, and of the files: `cost.anchor` writes `cost.anchor.json`.
      doc: The module's docstring: the claims, the expected results, the time. `--help` shows it.
      measure: From the options to the results, all that the record holds. Prints what takes long.
      text: From the results to Markdown: the tables, then how to read them.
      failures: From the results to a message for every claim that does not hold.
      draw: From the results to a matplotlib figure; None without one.
      options: Adds options of its own to the parser.
      packages: Whose versions the record names.
    """

    name: str
    doc: str | None
    measure: Callable[[Namespace], Results]
    text: Callable[[Results], str]
    failures: Callable[[Results], Sequence[str]] = lambda results: ()
    draw: Callable[[Results], Any] | None = None
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    packages: Sequence[str] = record.PACKAGES


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line on stderr, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def command(question: Question, argv: Sequence[str] | None = None) -> int:
    """Answer the question: measure, write, print. Return 1 if a claim does not hold, else 0."""
    parser = parser_of(question)
    options = parser.parse_args(argv)
    folder = folder_of(parser, options)
    start = time.perf_counter()
    try:
        results = question.measure(options)
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    results = {
        "environment": record.environment(question.packages),
        "seconds": round(time.perf_counter() - start, 1),
        **results,
    }
    failures = list(question.failures(results))
    write(question, results | {"failures": failures}, folder)
    print(question.text(results))
    print("\n" + "\n".join(["Claims that do not hold:", *failures] if failures else [HELD]))
    print(f"{results['seconds']:.0f} s. Wrote {question.name}.* to {options.out}")
    return 1 if failures else 0


HELD = "All claims hold."


def parser_of(question: Question) -> Parser:
    """Return the parser of a benchmark's command line."""
    parser = Parser(
        prog=f"python -m benchmarks.{question.name}",
        description=question.doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    place = parser.add_mutually_exclusive_group()
    out = Path("out") / question.name
    place.add_argument(
        "--out", type=Path, default=out, metavar="DIR", help=f"Write to DIR (default: {out})."
    )
    place.add_argument(
        "--record",
        action="store_const",
        const=RESULTS,
        dest="out",
        help="Write to benchmarks/results; refused while the working tree has changes.",
    )
    question.options(parser)
    return parser


def folder_of(parser: argparse.ArgumentParser, options: Namespace) -> Path:
    """Return the folder to write to, created; exit where that is impossible or refused."""
    out = options.out
    if out == RESULTS and record.git_state(record.ROOT)["dirty"] is not False:
        parser.error(
            "the working tree has changes or is no clone, so that a record could not name the "
            "commit it was made from. Commit, or use `--out DIR`."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        writable = os.access(out, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        parser.error(
            f"`--out` should be a folder that can be written to, got '{out}'. "
            "Name another folder; it is created if it does not exist."
        )
    return out


def write(question: Question, results: Results, folder: Path) -> None:
    """Write the record, its tables and its figure, named after the question."""
    record.write(folder / f"{question.name}.json", results)
    (folder / f"{question.name}.md").write_text(f"{question.text(results)}\n")
    if question.draw:
        question.draw(results).savefig(folder / f"{question.name}.png", dpi=150)
