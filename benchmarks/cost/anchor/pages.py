"""What the pages quote from the record of the anchor's memory."""

from benchmarks.harness.record import Results
from benchmarks.harness.tables import only


def rounding(results: Results) -> str:
    """Return how far the rounded anchor is from the parameters, relative to their norm."""
    first, *_ = results["tables"][-2]["rows"]
    return f"{first['change of r / |w_s|']:.1e}".replace("e-0", "e-")


def at_first(results: Results) -> str:
    """Return the change of the pull relative to the pull after one step."""
    return f"{only(results['tables'][-2]['rows'], steps=1)['change of r / |r|']:.1f} times"


def at_last(results: Results) -> str:
    """Return the same after all steps."""
    return f"{100 * only(results['tables'][-2]['rows'], steps=150)['change of r / |r|']:.0f} %"


def accuracy(results: Results) -> str:
    """Return the largest change of a mean accuracy, in points."""
    return f"{max(abs(row['difference']) for row in results['tables'][-1]['rows']):.2f}"
