"""What the pages quote from the record of the renewals."""

from benchmarks.digits.renewals.report import (
    RULES,
    accuracy_row,
    as_often,
    guarantee_row,
    loss,
    mean_of,
)
from benchmarks.digits.renewals.ways import PERIODS
from benchmarks.harness.record import Results
from benchmarks.harness.tables import markdown


def accuracy(results: Results) -> str:
    """Return what the periods, the rules, the features and the plain sum do to the accuracy."""
    ways = [*map(str, PERIODS[1:]), *RULES, "features", "plain"]
    return markdown([accuracy_row(results, way) for way in ways])


def guarantee(results: Results) -> str:
    """Return how often and by how much the steps of a period fall short of the guarantee."""
    return markdown([guarantee_row(results, way) for way in [*map(str, PERIODS), "plain"]])


def rules(results: Results) -> str:
    """Return what every rule loses, and the period that takes both gradients as often."""
    return markdown(
        [
            {
                "both gradients": accuracy_row(results, way)["both gradients"],
                "in steps": f"{mean_of(results, 'renewed', way=way):.0%}",
                "points": f"{loss(results, way):+.2f}",
                "a period, as often": f"{as_often(results, way):+.2f}",
            }
            for way in RULES
        ]
    )
