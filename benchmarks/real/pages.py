"""What the pages quote from the record of the experiment."""

from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.real.report import regret, row


def headline(results: Results) -> str:
    """Return the table of two sources, two weights and three decisions."""
    cells = [cell for cell in results["runs"] if cell["cell"] == "headline"]
    return tables.markdown([row(results, cell) for cell in cells])


def weights(results: Results) -> str:
    """Return what the best and the worst weight lack."""
    return tables.markdown(regret(results))
