"""The three things that `benchmarks.paper` does: list, run, report.

What brings in jax, scipy and matplotlib is imported where it is needed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.paper import listing, runs
from benchmarks.paper.cells import Cell, Table
from benchmarks.paper.state import State, rates

States = Mapping[Cell, State]


def show(states: States, out: Path) -> None:
    """Print how far every cell is and what it still needs."""
    print(listing.text(states, rates(list(states), out)))


def run(table: Table, states: States, out: Path, minutes: float) -> bool:
    """Run the cells that can be run, and return whether all of those went well."""
    ready = [cell for cell, at in states.items() if not (at.finished or at.missing)]
    outcome = runs.run(ready, table.arguments, out, seconds=60 * minutes)
    finished = sum(at.finished for at in states.values())
    lacking = sum(bool(at.missing) for at in states.values())
    print(
        f"\n{len(outcome.ran)} cells finished now, {finished} before, of {len(states)}; "
        f"{len(outcome.left)} left for lack of time, {len(outcome.busy)} run by another process, "
        f"{lacking} lack something (--list says what)."
    )
    if outcome.failed:
        print(f"{len(outcome.failed)} failed: {', '.join(map(str, outcome.failed))}")
    return not outcome.failed


def report(table: Table, states: States, out: Path) -> None:
    """Print the table of the finished cells, and write it as JSON, Markdown and a figure."""
    from benchmarks.paper import report as made

    results = made.results(table, list(states), out)
    write(results, out, "table")
    print(f"{made.text(results)}\n\nWrote table.json, .md and .png to {out}")


def write(results: dict[str, Any], out: Path, name: str) -> None:
    """Write the record, the table in Markdown and the figure."""
    from benchmarks.harness import record
    from benchmarks.paper import figure
    from benchmarks.paper import report as made

    record.write(out / f"{name}.json", results)
    (out / f"{name}.md").write_text(f"{made.markdown(results)}\n\n{made.note(results)}\n")
    figure.draw(results).savefig(out / f"{name}.png", dpi=150)
