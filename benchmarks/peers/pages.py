"""What the pages quote from the record next to other libraries."""

from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.harness.timing import Spread

CONTENDERS = ("ours", "optax by hand", "torch by hand", "TorchJD PCGrad")


def table(results: Results) -> str:
    """Return the times of whole steps relative to one gradient's."""
    found = {
        (row["work"], row["contender"]): str(Spread(*row["ratio"]))
        for row in (*results["step"], *results["finetuning"])
        if row["ratio"]
    }
    works = list(dict.fromkeys(work for work, _ in found))
    return tables.markdown(
        [{"": by} | {work: found.get((work, by)) for work in works} for by in CONTENDERS]
    )


def images_ours(results: Results) -> str:
    """Return the images per second of our L2-SP on a ResNet-18."""
    return _images(results, "ours")


def images_torch(results: Results) -> str:
    """Return the same of torch by hand."""
    return _images(results, "torch by hand")


def _images(results: Results, contender: str) -> str:
    (found,) = (
        row["images/s"][0]
        for row in results["finetuning"]
        if (row["work"], row["contender"]) == ("L2-SP", contender)
    )
    return f"{found:.0f}"
