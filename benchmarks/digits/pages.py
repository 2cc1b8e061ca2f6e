"""What the pages quote from the records of the digits."""

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
