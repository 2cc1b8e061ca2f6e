"""What the pages quote from the record of the decision before training."""

from benchmarks.digits.gate.report import MAIN
from benchmarks.harness.record import Results
from benchmarks.harness.tables import only


def regret(results: Results) -> str:
    """Return the mean regret in points on the source that the decision was not designed on."""
    where = {"part": "new seeds, new source", "weight": "given", "decision": MAIN}
    return f"{only(results['regrets'], **where)['mean_regret']:.1f}"


def lost(results: Results) -> str:
    """Return the worst regret in points on new seeds, of all sources."""
    worst = max(
        row["worst_regret"][0]
        for row in results["regrets"]
        if row["decision"] == MAIN and row["part"].startswith("new seeds")
    )
    return f"{worst:.0f}"
