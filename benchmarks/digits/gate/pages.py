"""What the pages quote from the record of the decision before training."""

from benchmarks.harness.record import Results

DECISION = "cross-validation, Brier score"


def regret(results: Results) -> str:
    """Return the mean regret in points on the source that the decision was not designed on."""
    (found,) = (
        row["mean_regret"]
        for row in _rows(results)
        if (row["part"], row["weight"]) == ("new seeds, new source", "given")
    )
    return f"{found:.1f}"


def lost(results: Results) -> str:
    """Return the worst regret in points on new seeds, of all sources."""
    return f"{max(row['worst_regret'][0] for row in _rows(results)):.0f}"


def _rows(results: Results) -> list[Results]:
    return [
        row
        for row in results["regrets"]
        if row["decision"] == DECISION and row["part"].startswith("new seeds")
    ]
