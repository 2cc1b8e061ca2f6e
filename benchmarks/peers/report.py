"""The tables as text, and the notes that belong under them."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.agreement import Row
from benchmarks.peers.ratios import Spread

COLUMNS = {
    "combination": ("work", "contender", "ms", "ratio", "difference", "from float64"),
    "step": ("work", "contender", "ms", "ratio", "flops", "difference"),
    "finetuning": ("work", "contender", "images/s", "ratio", "to torch", "peak MiB", "difference"),
}
TITLES = {
    "combination": "The combination alone: both gradients are given, the direction is formed",
    "step": "A whole step with two gradients, relative to the framework's own with one",
    "finetuning": "Fine-tuning a ResNet-18 on {batch} images of {image} px",
}
HEADINGS = {
    "work": "work",
    "contender": "by",
    "ms": "ms",
    "images/s": "images/s",
    "flops": "flops to one gradient",
    "difference": "difference from torch by hand",
    "from float64": "from the formula in float64",
    "to torch": "time to torch by hand",
    "peak MiB": "peak memory, MiB",
}
SUMMED = ("ours", "optax by hand", "torch by hand", "TorchJD PCGrad")
RATIOS = {"combination": "time to torch by hand"}
NOTE = """\
Medians and quartiles over {rounds} rounds in which all take turns, each framework in a process of
its own, {threads} threads on as many cores. OpenMP waits passively, and the memory allocator keeps
what is free, for all alike. A ratio is that of two runs of the same round, above 1 is slower.
Nothing about time is asserted.

*Difference* is |a - b| / |b| of all updates together, from the same numbers: in float32 for the
combination; in float64, and compiled without most optimizations, for the parameters after one step,
which is not the program that is timed. Ours may be {float32:g} and {float64:g}
from torch's by hand. Optax by hand sums with `optax.tree.vdot`, whose error in float32 grows with
the leaf. Flops are XLA's count for jax, torch's own for torch (products and convolutions alone).

TorchJD's aggregators are not like for like: PCGrad projects both gradients, the loss's as well;
UPGrad and MGDA weigh both. Compared is their time, what a user pays there for two gradients, and
not their result. `lean` is PCGrad with TorchJD's own options against memory:
`optimize_gramian_computation`, and one loss at a time. L2-SP reaches TorchJD as a second loss; ours
and by hand form its gradient without a backward pass.

Peak memory is the high-water mark of resident memory of a process that makes this step
alone, with the allocator as it comes, imports included (jax {jax:.0f} MiB, torch {torch:.0f}
MiB); jax loads a program that was compiled before. Torch is eager, channels first."""


def note(results: Mapping[str, Any]) -> str:
    """Return what belongs under the tables."""
    imported = {row["contender"]: row["after imports MiB"] for row in results["finetuning"]}
    return NOTE.format(**{**results, **results["bars"], **imported})


def text(tables: Mapping[str, Sequence[Row]], images: Mapping[str, int]) -> str:
    """Return all tables in Markdown."""
    return "\n\n".join(
        f"**{TITLES[name].format(**images)}**\n\n{table(name, rows)}"
        for name, rows in tables.items()
    )


def table(name: str, rows: Sequence[Row]) -> str:
    """Return one table in Markdown."""
    columns = COLUMNS[name]
    ratio = RATIOS.get(name, "time to one gradient")
    lines = [[HEADINGS.get(column, ratio) for column in columns]]
    lines += [["---"] * len(columns)]
    lines += [[cell(column, row[column]) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(column: str, value: Any) -> str:
    """Return one cell."""
    if value is None:
        return "–"
    if isinstance(value, Spread):
        return value.text(1 if column in ("ms", "images/s") else 2)
    if column == "peak MiB":
        return f"{value:.0f}"
    if column == "flops":
        return f"{value:.2f}"
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def summary(results: Mapping[str, Any]) -> str:
    """Return the times of whole steps relative to one gradient's, for the README."""
    found = {
        (row["work"], row["contender"]): Spread(*row["ratio"])
        for row in (*results["step"], *results["finetuning"])
        if row["ratio"]
    }
    works = list(dict.fromkeys(work for work, _ in found))
    lines = [["", *works], ["---"] * (len(works) + 1)]
    lines += [[by, *(cell("ratio", found.get((work, by))) for work in works)] for by in SUMMED]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
