"""What the pages quote from the record of the anchor's memory."""

from benchmarks.harness.record import Results


def rounding(results: Results) -> str:
    """Return how far the rounded anchor is from the parameters, relative to their norm."""
    first, *_ = results["tables"][3]["rows"]
    return f"{first['change of r / |w_s|']:.1e}".replace("e-0", "e-")


def at_first(results: Results) -> str:
    """Return the change of the pull relative to the pull after one step."""
    return f"{_change(results, 1):.1f} times"


def at_last(results: Results) -> str:
    """Return the same after all steps."""
    return f"{100 * _change(results, 150):.0f} %"


def accuracy(results: Results) -> str:
    """Return the largest change of a mean accuracy, in points."""
    return f"{max(abs(row['difference']) for row in results['tables'][4]['rows']):.2f}"


def _change(results: Results, steps: int) -> float:
    (found,) = (row for row in results["tables"][3]["rows"] if row["steps"] == steps)
    return found["change of r / |r|"]
