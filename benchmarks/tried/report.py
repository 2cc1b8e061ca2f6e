"""What was tried as a page: the tables, and for each idea a sentence with its figures."""

from collections.abc import Mapping
from typing import Any

from benchmarks.cost.tables import Table
from benchmarks.parts.markdown import rows_as_table
from benchmarks.tried.sums import (
    CONTRACTED,
    JOINED,
    JOINED_SUMS,
    JOINED_VECTORS,
    NOW,
    STACKED,
    VARIADIC,
)


def markdown(found: Mapping[str, Table]) -> str:
    """Return the page."""
    parts = [
        f"{table.title[0].upper()}{table.title[1:]}:\n\n{rows_as_table(table.rows)}"
        for table in found.values()
    ]
    return "\n\n".join([verdicts(found), *parts]) + "\n"


def verdicts(found: Mapping[str, Table]) -> str:
    """Return one sentence for every idea."""
    sums = {(row["tree"], row["idea"]): row for row in found["ideas"].rows}
    gathers = {row["idea"]: row["all-gather"] for row in found["sharded"].rows}
    errors = {row["idea"]: row["relative error"] for row in found["rounding"].rows}

    def cost(idea: str, quantity: str, tree: str = "ResNet-50") -> Any:
        return sums[tree, idea][quantity]

    small = "200 small leaves"
    lines = [
        "**Both inner products in one product `[r; m] m`: rejected.** "
        f"{cost(STACKED, 'bytes'):.1f} N and {cost(STACKED, 'temporary'):.1f} N of temporary on "
        f"ResNet-50, now {cost(NOW, 'bytes'):.1f} and {cost(NOW, 'temporary'):.3f}, since the "
        f"stacked leaves are stored; {gathers[STACKED]} gathers when sharded, now {gathers[NOW]}.",
        "**Both in one reduction with two results: rejected.** "
        f"{cost(VARIADIC, 'bytes'):.1f} N, the fewest, but XLA:CPU adds a leaf up in one "
        f"accumulator, with an error of {errors[VARIADIC]:.0e} on 2.4 million elements, now "
        f"{errors[NOW]:.0e}; {gathers[VARIADIC]} gathers when sharded.",
        "**Both by a contraction of all axes: rejected.** "
        f"{cost(CONTRACTED, 'bytes'):.1f} N on ResNet-50, the same, and on small leaves "
        f"{cost(CONTRACTED, 'bytes', small):.1f} instead of {cost(NOW, 'bytes', small):.1f} in "
        f"{cost(CONTRACTED, 'instructions', small)} instructions instead of "
        f"{cost(NOW, 'instructions', small)}.",
        "**Vectors (biases, scales) joined for the sums: not in the library, to be measured on an "
        f"accelerator.** {cost(JOINED_VECTORS, 'fusions')} kernels instead of "
        f"{cost(NOW, 'fusions')} and {cost(JOINED_VECTORS, 'instructions')} instructions instead "
        f"of {cost(NOW, 'instructions')} on ResNet-50, at {cost(JOINED_VECTORS, 'bytes'):.1f} N as "
        f"now; on 200 small leaves {cost(JOINED_VECTORS, 'fusions', small)} kernels instead of "
        f"{cost(NOW, 'fusions', small)}. But vectors that are sharded are gathered "
        f"({gathers[JOINED_VECTORS]} gathers, now {gathers[NOW]}), and a transformation does not "
        "see whether they are.",
        "**All small leaves joined for the sums: rejected.** "
        f"{cost(JOINED_SUMS, 'fusions')} kernels on ResNet-50, no fewer than with vectors alone to "
        f"speak of, and {cost(JOINED_SUMS, 'fusions', small)} instead of "
        f"{cost(NOW, 'fusions', small)} on 200 small leaves, but there "
        f"{cost(JOINED_SUMS, 'bytes', small):.1f} N instead of {cost(NOW, 'bytes', small):.1f} and "
        f"{cost(JOINED_SUMS, 'temporary', small):.1f} N of temporary, and {gathers[JOINED_SUMS]} "
        "gathers when sharded.",
        "**Small leaves joined for the whole update: rejected.** "
        f"{cost(JOINED, 'fusions', small)} kernels, {cost(JOINED, 'temporary', small):.1f} N of "
        f"temporary, {gathers[JOINED]} gathers when sharded; its bytes are no measure, since XLA "
        "charges the whole vector for every slice of it.",
        _ghost(found),
        "**A kernel written in Pallas: not tried.** There was no accelerator to run it on. What it "
        "could gain is the second reading of `g`, 1 N, where the compiler does not share it.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _ghost(found: Mapping[str, Table]) -> str:
    first, *_, last = rows = found["ghost"].rows
    pays = max(row["rows"] for row in rows if row["flops, ghost"] < row["flops, pair"])
    error = max(row["error"] for row in found["ghost, exact"].rows)
    return (
        "**Gram matrices for dense layers: exact, but not in the library.** "
        f"{first['flops, ghost']:.2f} times the flops of one gradient instead of "
        f"{first['flops, pair']:.2f} at {first['rows']} rows of {first['width']} units, with "
        f"{first['temporary, ghost to pair']:.0%} of the temporary memory and an error of "
        f"{error:.0e}, conflict or not; {last['flops, ghost']:.2f} instead of "
        f"{last['flops, pair']:.2f} at {last['rows']} rows. It pays up to {pays} rows at "
        f"{first['width']} units, a count that the positions of images and sequences exceed by "
        "far, and it has to see inside every layer, where a transformation sees gradients alone."
    )
