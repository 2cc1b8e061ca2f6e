"""What the pages quote from the record of the decision before training."""

from benchmarks.harness.record import Results
from benchmarks.harness.tables import only

DECISION = "cross-validation, Brier score"


def regret(results: Results) -> str:
    """Return the mean regret in points on the source that the decision was not designed on."""
    where = {"part": "new seeds, new source", "weight": "given", "decision": DECISION}
    return f"{only(results['regrets'], **where)['mean_regret']:.1f}"


def lost(results: Results) -> str:
    """Return the worst regret in points on new seeds, of all sources."""
    worst = max(
        row["worst_regret"][0]
        for row in results["regrets"]
        if row["decision"] == DECISION and row["part"].startswith("new seeds")
    )
    return f"{worst:.0f}"
