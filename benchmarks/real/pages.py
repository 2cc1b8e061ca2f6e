"""What the pages quote from the record, each a short string."""

from functools import partial

from benchmarks.harness.record import Results
from benchmarks.harness.statistics import mean_interval
from benchmarks.real import selection
from benchmarks.real.cells import BAD, GOOD


def accuracy(results: Results, source: str) -> str:
    """Return the accuracy of fine-tuning, with its interval."""
    (cell,) = selection.fine_tuning(results, source)
    return str(mean_interval(cell["accuracy"]))


def knowdist(results: Results, method: str) -> str:
    """Return what a decision changes about KnowDist at the strong weight, from ImageNet."""
    cell = selection.headline(results, source=GOOD, regularizer="KnowDist", method=method)[-1]
    difference = selection.against_plain(results, cell)
    return difference.signed() if difference else "n/a"


def removed(results: Results, unit: str) -> str:
    """Return the share of L2-SP removed at batch 16, from ImageNet, over the weights, in %."""
    cells = selection.headline(results, source=GOOD, regularizer="L2-SP", method="plain")
    found = [100 * (cell[f"whole network, {unit}"][0] or 0) for cell in cells]
    return f"{min(found):.2g} to {max(found):.2g}"


fine_tuning, shuffled = partial(accuracy, source=GOOD), partial(accuracy, source=BAD)
knowdist_whole, knowdist_element = (
    partial(knowdist, method=x) for x in ("whole tree", "per element")
)
removed_whole, removed_element = (partial(removed, unit=x) for x in ("whole tree", "per element"))
