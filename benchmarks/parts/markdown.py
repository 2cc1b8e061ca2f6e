"""Rows of figures as a table in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def rows_as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `rows` under their names, numbers to 4 digits, a dash for what there is not."""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[_cell(value) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
