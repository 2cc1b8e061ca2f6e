"""What the pages quote from the record of the renewals."""

from benchmarks.digits.renewals.report import accuracy_row, guarantee_row
from benchmarks.digits.renewals.ways import PERIODS
from benchmarks.harness.record import Results
from benchmarks.harness.tables import markdown


def accuracy(results: Results) -> str:
    """Return what the periods, the features and the plain sum do to the accuracy."""
    ways = [*map(str, PERIODS[1:]), "features", "plain"]
    return markdown([accuracy_row(results, way) for way in ways])


def guarantee(results: Results) -> str:
    """Return how often and by how much the steps of a period fall short of the guarantee."""
    return markdown([guarantee_row(results, way) for way in [*map(str, PERIODS), "plain"]])
