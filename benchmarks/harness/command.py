"""One question as a command: options, measurement, record, tables, figure, exit code.

Every benchmark has the same four ways to run::

    python -m benchmarks.QUESTION              # writes to out/QUESTION
    python -m benchmarks.QUESTION --out DIR
    python -m benchmarks.QUESTION --record     # writes to benchmarks/results
    python -m benchmarks.QUESTION --redraw     # tables and figure again, from the record there

`--record` refuses a working tree with changes, because the commit in a record says how it was made.
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
from optax_dtnh.finetune.errors import UsageError

RESULTS = record.ROOT / "benchmarks" / "results"


class Question(NamedTuple):
    """What a benchmark asks, and how it answers.

    Attributes:
      name: Name of the module in `benchmarks` and of the files: `cost.anchor` writes
        `cost.anchor.json`.
      doc: The module's docstring: the claims, the expected results, the time. `--help` shows it.
      measure: From the options to the results, all that the record holds. Prints what takes long.
        Files beside the record belong in the folder `options.out`, which exists. A `UsageError` or
        an `ImportError` is shown in one line.
      text: From the results to Markdown: the tables, then how to read them.
      failures: From the results to a message for every claim that does not hold; None if nothing
        is claimed.
      draw: From the results to a matplotlib figure; None without one.
      options: Adds options of its own to the parser.
      packages: Whose versions the record names.
    """

    name: str
    doc: str | None
    measure: Callable[[Namespace], Results]
    text: Callable[[Results], str]
    failures: Callable[[Results], Sequence[str]] | None = None
    draw: Callable[[Results], Any] | None = None
    options: Callable[[argparse.ArgumentParser], Any] = lambda _: None
    packages: Sequence[str] = record.PACKAGES


def option(name: str, **settings: Any) -> Callable[[argparse.ArgumentParser], Any]:
    """Return what adds one option to a parser."""
    return lambda parser: parser.add_argument(name, **settings)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line on stderr, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def command(question: Question, argv: Sequence[str] | None = None) -> int:
    """Answer the question: measure, write, print. Return 1 if a claim does not hold, else 0."""
    parser = parser_of(question)
    options = parser.parse_args(argv)
    folder = RESULTS if options.record or options.redraw else options.out
    file = folder / f"{question.name}.json"
    results = record.read(file) if options.redraw else measured(parser, question, options)
    failures = list(question.failures(results)) if question.failures else None
    if not options.redraw:
        record.write(file, results if failures is None else {**results, "failures": failures})
    write(question, results, folder)
    print(question.text(results))
    if failures is not None:
        said = ["Claims that do not hold:", *failures] if failures else ["No claim fails."]
        print("\n" + "\n".join(said))
    took = "" if options.redraw else f"{results['seconds']:.0f} s. "
    place = "benchmarks/results" if folder == RESULTS else folder
    print(f"\n{took}Wrote {question.name}.* to {place}")
    return 1 if failures else 0


def parser_of(question: Question) -> Parser:
    """Return the parser of a benchmark's command line."""
    parser = Parser(
        prog=f"python -m benchmarks.{question.name}",
        description=question.doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add: Callable[..., Any] = parser.add_argument
    out = Path("out") / question.name
    add("--out", type=Path, default=out, metavar="DIR", help=f"Write to DIR (default: {out}).")
    record_help = "Write to benchmarks/results; refused while the working tree has changes."
    add("--record", action="store_true", help=record_help)
    redraw_help = "Measure nothing; write tables and figure again, from benchmarks/results."
    add("--redraw", action="store_true", help=redraw_help)
    question.options(parser)
    return parser


def measured(parser: Parser, question: Question, options: Namespace) -> Results:
    """Return the results and where they come from; exit where that is refused or impossible."""
    git = record.git_state(record.ROOT)
    if options.record and git["dirty"] is not False:
        parser.error(
            "the working tree has changes or is no clone, so that a record could not name the "
            "commit it was made from. Commit, or use `--out DIR`."
        )
    make_folder(parser, options.out)
    start = time.perf_counter()
    try:
        results = question.measure(options)
    except (UsageError, ImportError) as error:
        parser.error(str(error))
    environment = record.environment(question.packages) | git
    seconds = round(time.perf_counter() - start, 1)
    return {"environment": environment, "seconds": seconds, **results}


def make_folder(parser: Parser, out: Path) -> None:
    """Create the folder `--out`; exit where that or writing to it is impossible."""
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


def write(question: Question, results: Results, folder: Path) -> None:
    """Write the tables and the figure, named after the question."""
    (folder / f"{question.name}.md").write_text(f"{question.text(results)}\n", encoding="utf-8")
    if question.draw:
        question.draw(results).savefig(folder / f"{question.name}.png", dpi=150)
