"""What the pages quote from the record next to other libraries."""

from functools import partial

from benchmarks.harness.record import Results
from benchmarks.harness.tables import markdown, only
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
    return markdown(
        [{"": by} | {work: found.get((work, by)) for work in works} for by in CONTENDERS]
    )


def images(results: Results, contender: str) -> str:
    """Return the images per second of L2-SP on a ResNet-18."""
    row = only(results["finetuning"], work="L2-SP", contender=contender)
    return f"{row['images/s'][0]:.0f}"


images_ours = partial(images, contender="ours")
images_torch = partial(images, contender="torch by hand")
