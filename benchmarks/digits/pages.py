"""What the pages quote from the records of the digits."""

from benchmarks.digits.table import markdown
from benchmarks.harness.record import Results


def table(results: Results) -> str:
    """Return the compact table of the README."""
    return markdown(results)


def seeds(results: Results) -> str:
    """Return the number of seeds."""
    return str(len(results["seeds"]))
