"""What the pages quote from the record on many devices."""

from functools import partial

from benchmarks.harness.record import Results
from benchmarks.harness.tables import formatted, only

SHOWN = (
    *("Adam", "L2-SP in the loss, Adam", "add_l2_sp, Adam", "distance in the loss, Adam"),
    *("dtnh, inner=scale_by_adam", "scale_by_adam_dtnh"),
)


COLUMNS = {
    "step, 64 devices, FSDP": "{step}",
    "arguments, GiB": "{arguments GiB:.2f}",
    "temporaries, GiB": "{temporary GiB:.2f}",
    "gathered, GiB": "{all-gather GiB:.1f}",
    "reduced, GiB": "{all-reduce GiB:.1f}",
    "matrix products, TFLOP": "{TFLOP:.1f}",
}


def table(results: Results) -> str:
    """Return what a training step holds and moves on each of 64 devices."""
    return formatted([_step(results, name) for name in SHOWN], COLUMNS)


def anchor(results: Results) -> str:
    """Return the GiB of the anchor on each device."""
    with_it, without = (_step(results, name) for name in ("add_l2_sp, Adam", "Adam"))
    return f"{with_it['arguments GiB'] - without['arguments GiB']:.2f}"


def pair_to_one(results: Results, quantity: str) -> str:
    """Return a quantity of a pair of gradients relative to one gradient's."""
    pair, one = _step(results, "dtnh, inner=scale_by_adam"), _step(results, SHOWN[3])
    return f"{pair[quantity] / one[quantity]:.2f}"


products = partial(pair_to_one, quantity="TFLOP")
gathered = partial(pair_to_one, quantity="all-gather GiB")


def reductions(results: Results) -> str:
    """Return the all-reduces that `dtnh` adds to an update on a mesh of two axes."""
    return str(only(results["tables"][1]["rows"], update="dtnh, SGD")["all-reduce"])


def _step(results: Results, name: str) -> Results:
    return only(results["tables"][2]["rows"], step=name)
