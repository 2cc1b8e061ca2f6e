"""The results of a part of `benchmarks.cost`: tables, each with the claims that fail."""

from collections.abc import Iterable
from typing import Any

from benchmarks.harness.record import Results
from benchmarks.harness.tables import Row, Table, markdown


def results(tables: Iterable[Table], **more: Any) -> Results:
    """Return what the record holds, naming every table once it is measured."""
    measured = []
    for table in tables:
        print(f"measured: {table.title}", flush=True)
        measured.append(table._asdict())
    return {**more, "tables": measured}


def failures(results: Results) -> list[str]:
    """Return the messages of every table."""
    return [message for table in results["tables"] for message in table["failures"]]


def text(results: Results) -> str:
    """Return the tables, without the columns that hold nothing."""
    versions = results["environment"]
    head = f"Compiled for {results.get('compiled for', 'CPU')} with jax {versions['jax']}."
    parts = [f"**{t['title']}**\n\n{markdown(held(t['rows']))}" for t in results["tables"]]
    return "\n\n".join([head, *parts])


def held(rows: list[Row]) -> list[Row]:
    """Return the rows without the columns that are 0 or empty in all of them."""
    keep = [key for key in rows[0] if any(row[key] not in (None, 0, "") for row in rows)]
    return [{key.replace("|", "\\|"): row[key] for key in keep} for row in rows]
