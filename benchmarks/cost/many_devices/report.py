"""The record as Markdown: one table each, columns that hold nothing left out."""

from typing import Any

from benchmarks.cost.many_devices.hlo import KINDS

Row = dict[str, Any]


def markdown(record: dict[str, Any]) -> str:
    """Return every table of the record."""
    versions = record["environment"]
    head = f"Compiled for {record['compiled for']} with jax {versions['jax']}."
    parts = [f"**{table['title']}**\n\n{_table(table['rows'])}" for table in record["tables"]]
    return "\n\n".join([head, *parts]) + "\n"


def _table(rows: list[Row]) -> str:
    rows = [_shown(row) for row in rows]
    columns = [key for key in rows[0] if any(row[key] not in (None, 0) for row in rows)]
    names = [column.replace("|", "\\|") for column in columns]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(_cell(row[key]) for key in columns) + " |" for row in rows]
    return "\n".join(lines)


def _shown(row: Row) -> Row:
    # An update's all-reduces are of scalars.
    small = {
        f"{kind} bytes": round(row[f"{kind} GiB"] * 2**30)
        for kind in KINDS
        if "update" in row and f"{kind} GiB" in row
    }
    return {k: v for k, v in row.items() if "update" not in row or k[:-4] not in KINDS} | small


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if value >= 100 else f"{value:.4g}"
    return "–" if value is None else str(value)
