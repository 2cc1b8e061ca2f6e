"""Rows of figures as a table in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Table(NamedTuple):
    """One thing measured."""

    title: str  # what was measured, on what
    rows: list[dict[str, Any]]  # one per line, with the same columns
    failures: list[str]  # a message for every claim that does not hold


def only(rows: Iterable[dict[str, Any]], **values: Any) -> dict[str, Any]:
    """Return the one row that has these values in these columns."""
    (found,) = (row for row in rows if values.items() <= row.items())
    return found


def markdown(rows: Sequence[Row]) -> str:
    """Return `rows`, at least one, as a table in Markdown under the names of their columns."""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[cell(value).replace("|", "\\|") for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def formatted(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """Return `rows` as such a table of `columns`: by heading, a format of a row's values."""
    return markdown([{k: form.format_map(row) for k, form in columns.items()} for row in rows])


def cell(value: Any) -> str:
    """Return one value: numbers to 4 digits, a dash for none, text as it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    words = {None: "–", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
