"""What the pages quote from the record next to other libraries."""

from functools import partial

from benchmarks.harness.record import Results
from benchmarks.harness.tables import only


def images(results: Results, contender: str) -> str:
    """Return the images per second of L2-SP on a ResNet-18."""
    row = only(results["finetuning"], work="L2-SP", contender=contender)
    return f"{row['images/s'][0]:.0f}"


images_ours = partial(images, contender="ours")
images_torch = partial(images, contender="torch by hand")
