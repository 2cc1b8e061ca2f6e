"""What the pages quote from the record, each a short string."""

from functools import partial

from benchmarks.harness.record import Results
from benchmarks.harness.statistics import mean_interval
from benchmarks.real import report
from benchmarks.real.cells import BAD, GOOD


def accuracy(results: Results, source: str) -> str:
    """Return the accuracy of fine-tuning, with its interval."""
    (cell,) = report.fine_tuning(results, source)
    return str(mean_interval(cell["accuracy"]))


def knowdist(results: Results, method: str) -> str:
    """Return what a decision changes about KnowDist at the strong weight, from ImageNet."""
    cell = report.headline(results, source=GOOD, regularizer="KnowDist", method=method)[-1]
    difference = report.against_plain(results, cell)
    return difference.signed() if difference else "n/a"


fine_tuning, shuffled = partial(accuracy, source=GOOD), partial(accuracy, source=BAD)
knowdist_whole = partial(knowdist, method="whole tree")
knowdist_element = partial(knowdist, method="per element")
removed_whole = partial(report.removed, unit="whole tree")
removed_element = partial(report.removed, unit="per element")
