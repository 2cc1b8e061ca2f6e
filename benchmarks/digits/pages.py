"""What the pages quote from the records of the digits."""

from benchmarks.digits.table import markdown
from benchmarks.harness.record import Results, values


def largest_weight(results: Results) -> str:
    """Return the table at the largest weight alone, beside a figure of all of them."""
    return markdown(results | {"weights": [max(results["weights"])]})


def seeds(results: Results) -> str:
    """Return the number of seeds."""
    return str(len(results["seeds"]))


def beyond_both(results: Results) -> str:
    """Return by how many points at most a method beats its regularizer and fine-tuning alike."""

    def mean(cell: Results, method: str, weight: float) -> float:
        return float(values(results, cell["name"], method, weight, "accuracy").mean())

    gains = [
        mean(cell, method["name"], weight)
        - max(mean(cell, name, weight) for name in (method["baseline"], results["reference"]))
        for method in results["methods"]
        if method["baseline"]
        for cell in results["cells"]
        for weight in results["weights"]
    ]
    return f"{max(gains):.1f}"
