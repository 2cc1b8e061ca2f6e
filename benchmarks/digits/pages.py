"""What the pages quote from the records of the digits."""

from typing import Any

from benchmarks.digits import comparison
from benchmarks.digits.methods import FINE_TUNING
from benchmarks.digits.table import mean_accuracy
from benchmarks.harness.record import Results


def seeds(results: Results) -> str:
    """Return the number of seeds."""
    return str(len(results["seeds"]))


def beyond_both(results: Results) -> str:
    """Return by how many points at most a method beats its regularizer and fine-tuning alike."""

    def gain(cell: str, method: Results, weight: float) -> float:
        names = method["name"], method["baseline"], results["reference"]
        own, *others = (mean_accuracy(results, cell, name, weight) for name in names)
        return own - max(others)

    gains = [
        gain(cell["name"], method, weight)
        for method in results["methods"]
        if method["baseline"]
        for cell in results["cells"]
        for weight in results["weights"]
    ]
    return f"{max(gains):.1f}"


def regret(results: Results) -> str:
    """Return the mean regret of the choice of `compare`, in points."""
    return f"{_of(results, comparison.CHOSEN)['mean regret']:.1f}"


def fine_tuning(results: Results) -> str:
    """Return the mean regret of fine-tuning in every case, in points."""
    return f"{_of(results, f'always {FINE_TUNING}')['mean regret']:.1f}"


def cautious(results: Results) -> str:
    """Return the mean regret where a gain has to be above its 95 % interval, in points."""
    return f"{_of(results, comparison.CAUTIOUS)['mean regret']:.1f}"


def worst(results: Results) -> str:
    """Return the worst regret of the choice of `compare`, in points with its interval."""
    return str(_of(results, comparison.CHOSEN)["worst regret"])


def _of(results: Results, decision: str) -> dict[str, Any]:
    return comparison.summary(comparison.regrets(results), decision)
