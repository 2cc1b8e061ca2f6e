"""What the pages quote from the record of the guarantee."""

from benchmarks.harness import tables
from benchmarks.harness.record import Results


def table(results: Results) -> str:
    """Return how often the regularizer raises the loss, form by optimizer, at ordinary weights."""
    rows: dict[str, dict[str, str]] = {}
    for row in _ordinary(results):
        rows.setdefault(row["form"], {"form": row["form"]})[row["optimizer"]] = _shown(row)
    return tables.markdown(list(rows.values()))


def draws(results: Results) -> str:
    """Return the number of draws behind every share."""
    return str(results["draws"])


def behind_momentum(results: Results) -> str:
    """Return the share of draws in which the loss is raised behind momentum."""
    return _share(results, "before", "momentum")


def behind_adam(results: Results) -> str:
    """Return the share of draws in which the loss is raised behind Adam."""
    return _share(results, "before", "adam")


def opposed(results: Results) -> str:
    """Return the share of exactly opposed draws that no longer descend at 1e8 times `|g|`."""
    (found,) = (
        row["not_descending"]
        for row in results["opposed"]
        if (row["dtype"], row["ratio"]) == ("float32", 1e8)
    )
    return f"{100 * found:.1f} %"


def _share(results: Results, form: str, optimizer: str) -> str:
    (found,) = (
        row for row in _ordinary(results) if (row["form"], row["optimizer"]) == (form, optimizer)
    )
    return _shown(found)


def _ordinary(results: Results) -> list[Results]:
    return [
        row for row in results["rows"] if (row["dtype"], row["range"]) == ("float32", "ordinary")
    ]


def _shown(row: Results) -> str:
    if not row["exists"]:
        return "–"
    share = f"{100 * row['raised']:.0f} %"
    if row["promises"]:
        return f"{share}; own: never" if row["own_reference"] else "never"
    return share
