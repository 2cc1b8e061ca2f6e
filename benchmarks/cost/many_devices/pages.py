"""What the pages quote from the record on many devices."""

from benchmarks.harness import tables
from benchmarks.harness.record import Results

SHOWN = (
    *("Adam", "L2-SP in the loss, Adam", "add_l2_sp, Adam", "distance in the loss, Adam"),
    *("dtnh, inner=scale_by_adam", "scale_by_adam_dtnh"),
)


def table(results: Results) -> str:
    """Return what a training step holds and moves on each of 64 devices."""
    return tables.markdown(
        [
            {
                "step, 64 devices, FSDP": step,
                "arguments, GiB": f"{row['arguments GiB']:.2f}",
                "temporaries, GiB": f"{row['temporary GiB']:.2f}",
                "gathered, GiB": f"{row['all-gather GiB']:.1f}",
                "reduced, GiB": f"{row['all-reduce GiB']:.1f}",
                "matrix products, TFLOP": f"{row['TFLOP']:.1f}",
            }
            for step in SHOWN
            for row in [_row(results, 2, "step", step)]
        ]
    )


def anchor(results: Results) -> str:
    """Return the GiB of the anchor on each device."""
    with_it, without = (
        _row(results, 2, "step", step)["arguments GiB"] for step in ("add_l2_sp, Adam", "Adam")
    )
    return f"{with_it - without:.2f}"


def products(results: Results) -> str:
    """Return the matrix products of a pair of gradients relative to one gradient's."""
    return _pair_to_one(results, "TFLOP")


def gathered(results: Results) -> str:
    """Return the gathered bytes of a pair of gradients relative to one gradient's."""
    return _pair_to_one(results, "all-gather GiB")


def reductions(results: Results) -> str:
    """Return the all-reduces that `dtnh` adds to an update on a mesh of two axes."""
    return str(_row(results, 1, "update", "dtnh, SGD")["all-reduce"])


def instructions(results: Results) -> str:
    """Return the instructions of an update for each leaf, with `dtnh`."""
    few, many = (
        row
        for row in results["tables"][5]["rows"]
        if row["form"] == "dtnh" and row["leaves"] in (1000, 2000)
    )
    return str((many["instructions"] - few["instructions"]) // (many["leaves"] - few["leaves"]))


def _pair_to_one(results: Results, quantity: str) -> str:
    pair, one = (
        _row(results, 2, "step", step)[quantity]
        for step in ("dtnh, inner=scale_by_adam", "distance in the loss, Adam")
    )
    return f"{pair / one:.2f}"


def _row(results: Results, table: int, column: str, name: str) -> Results:
    (found,) = (row for row in results["tables"][table]["rows"] if row[column] == name)
    return found
