"""The record of the guarantee as a table."""

from typing import Any

from benchmarks.guarantee.forms import DIRECTIONS, FORMS
from benchmarks.harness.tables import markdown


def table(results: dict[str, Any]) -> str:
    """Return the table of float32 at ordinary weights."""
    found = {
        (row["form"], row["optimizer"]): cell(row)
        for row in results["rows"]
        if (row["dtype"], row["range"]) == ("float32", "ordinary")
    }
    return markdown(
        [
            {"form": f"{form} ({value.written})"} | {name: found[form, name] for name in DIRECTIONS}
            for form, value in FORMS.items()
        ]
    )


def cell(row: dict[str, Any]) -> str:
    """Return what the table says of one form and optimizer."""
    if not row["exists"]:
        return "–"
    share = f"{100 * row['raised']:.0f} %"
    if row["promises"]:
        return f"{share}; own: never" if row["own_reference"] else "never"
    return share
