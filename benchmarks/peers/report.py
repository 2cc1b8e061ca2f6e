"""The tables as text, and the note that belongs under them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.harness.tables import markdown
from benchmarks.peers.work import IMAGES

SPREAD = "{0[0]:.2f} ({0[1]:.2f} to {0[2]:.2f})"
ROUGH = "{0[0]:.1f} ({0[1]:.1f} to {0[2]:.1f})"
COLUMNS = {  # by the key in a row: heading and format
    "work": ("work", "{}"),
    "contender": ("by", "{}"),
    "ms": ("ms", ROUGH),
    "images/s": ("images/s", ROUGH),
    "ratio": ("time to {base}", SPREAD),
    "to torch": ("time to torch by hand", SPREAD),
    "peak MiB": ("peak memory, MiB", "{:.0f}"),
    "difference": ("difference from torch by hand", "{:.1e}"),
    "from float64": ("from the formula in float64", "{:.1e}"),
}


class Table(NamedTuple):
    """A title, the keys of the columns after work and contender, and what a ratio is to."""

    title: str
    keys: Sequence[str]
    base: str = "one gradient"


TABLES = {
    "combination": Table(
        "The combination alone: both gradients are given, the direction is formed",
        ("ms", "ratio", "difference", "from float64"),
        "torch by hand",
    ),
    "finetuning": Table(
        "Fine-tuning a ResNet-18 on {batch} images of {image} px".format(**IMAGES),
        ("images/s", "ratio", "to torch", "peak MiB", "difference"),
    ),
}
NOTE = """\
Medians and quartiles over {rounds} rounds in which all take turns, each framework in a process of
its own, {threads} threads on as many cores. OpenMP waits passively, and the memory allocator keeps
what is free, for all alike. A ratio is that of two runs of the same round; above 1 is slower.
Nothing about time is asserted.

*Difference* is |a - b| / |b| of all updates together, from the same numbers: in float32 for the
combination; in float64, and compiled without most optimizations, for the parameters after one step,
which is not the program that is timed. Ours may be {float32:g} and {float64:g}
from torch's by hand. Optax by hand sums with `optax.tree.vdot`, whose error in float32 grows with
the leaf.

TorchJD's aggregators are not like for like: PCGrad projects both gradients, the loss's as well;
UPGrad and MGDA weigh both. Compared is their time, what a user pays there for two gradients, and
not their result. `lean` is PCGrad with TorchJD's own options against memory:
`optimize_gramian_computation`, and one loss at a time. L2-SP reaches TorchJD as a second loss; ours
and by hand form its gradient without a backward pass.

Peak memory is the high-water mark of resident memory of a process that makes this step
alone, with the allocator as it comes, imports included (jax {jax:.0f} MiB, torch {torch:.0f}
MiB); jax loads a program that was compiled before. Torch is eager, channels first."""


def text(results: Mapping[str, Any]) -> str:
    """Return all tables in Markdown, and how to read them."""
    imported = {row["contender"]: row["after imports MiB"] for row in results["finetuning"]}
    blocks = [f"**{TABLES[name].title}**\n\n{table(name, results[name])}" for name in TABLES]
    return "\n\n".join([*blocks, NOTE.format(**{**results, **results["bars"], **imported})])


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one table in Markdown."""
    _, keys, base = TABLES[name]
    columns = {key: COLUMNS[key] for key in ("work", "contender", *keys)}
    return markdown(
        [
            {
                heading.format(base=base): row[key] if row[key] is None else form.format(row[key])
                for key, (heading, form) in columns.items()
            }
            for row in rows
        ]
    )
