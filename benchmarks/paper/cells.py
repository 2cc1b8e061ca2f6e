"""What a table of transfers is made of: sources, targets, methods and seeds; a cell is one run."""

import itertools
import os
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.harness.command import Parser
from optax_dtnh.finetune.arguments import add_options, settings_of
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.settings import DTNH, PUBLISHED, Settings

OUT = "{out}"  # in texts: the folder of the table


class Asset(NamedTuple):
    """A pretrained checkpoint, or images with labels."""

    name: str  # in options, folders and tables
    where: str | None  # `--source` or `--data` of the command, None where the user has to say
    how: str = ""  # the command or the steps that get it
    trained_on: str = ""  # name of the data set that a checkpoint was trained on


class Target(NamedTuple):
    """A task to transfer to."""

    name: str  # in folders and tables
    data: str  # name of its data set
    train_per_class: int | None = None  # None for the split that the data have
    # Pairs of a regularizer and what the command gets with it, with or without DTNH.
    arguments: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Table(NamedTuple):
    """Every source with every target, method and seed."""

    question: str  # in a sentence
    sources: Sequence[Asset]  # to start from
    data: Sequence[Asset]  # the data sets of the targets
    targets: Sequence[Target]  # not combined with a source that was trained on their data
    methods: Sequence[str]  # as the command calls them
    seeds: Sequence[int]  # of the head, the selection, the order and the augmentation of images
    arguments: Sequence[str] = ()  # of the command, for every cell
    notes: Sequence[str] = ()  # what is documented, what is chosen, and what the numbers are


class Cell(NamedTuple):
    """One run of the command."""

    source: Asset
    data: Asset
    target: Target
    method: str
    seed: int

    def __str__(self) -> str:
        """Return its name, which is its folder in that of the table."""
        return "/".join(self.words())

    def words(self) -> tuple[str, ...]:
        """Return what `--only` may call it by."""
        return self.source.name, self.target.name, self.method, f"seed{self.seed}"


def cells(table: Table) -> Iterator[Cell]:
    """Yield all cells; those of one transfer and seed follow each other, for early comparisons."""
    data = {x.name: x for x in table.data}
    for source, target in itertools.product(table.sources, table.targets):
        if source.trained_on != target.data:
            for seed, method in itertools.product(table.seeds, table.methods):
                yield Cell(source, data[target.data], target, method, seed)


def selected(table: Table, words: Sequence[str]) -> list[Cell]:
    """Return the cells that `words` name, all if there are none.

    Words of one kind (sources, targets, methods, seeds) are alternatives; kinds narrow each other.
    """
    everything = list(cells(table))
    kinds = [set(names) for names in zip(*(cell.words() for cell in everything), strict=True)]
    if unknown := set(words).difference(*kinds):
        known = ", ".join(word for names in kinds for word in sorted(names))
        raise UsageError(
            f"`--only` should be among {known}, got {', '.join(sorted(unknown))}. Correct the name."
        )
    wanted = [names & set(words) or names for names in kinds]
    kept = [
        cell
        for cell in everything
        if all(word in names for word, names in zip(cell.words(), wanted, strict=True))
    ]
    if not kept:
        raise UsageError(
            f"`--only` should leave a cell, got {' '.join(words)}: a source is not combined with "
            "the data it was trained on. Name another target."
        )
    return kept


def placed(
    table: Table, out: str | os.PathLike[str], sources: Mapping[str, str], data: Mapping[str, str]
) -> Table:
    """Return the table with the user's own files and folders, and with the folder of the table."""

    def replaced(asset: Asset, places: Mapping[str, str]) -> Asset:
        where = places.get(asset.name, asset.where)
        here = None if where is None else where.replace(OUT, os.fspath(out))
        return asset._replace(where=here, how=asset.how.replace(OUT, os.fspath(out)))

    return table._replace(
        sources=[replaced(x, sources) for x in table.sources],
        data=[replaced(x, data) for x in table.data],
    )


def arguments(cell: Cell, common: Sequence[str]) -> list[str]:
    """Return the arguments of the command, but for `--out`; what the cell lacks is "missing"."""
    count = cell.target.train_per_class
    return [
        *("--source", cell.source.where or "missing"),
        *("--data", cell.data.where or "missing"),
        *(() if count is None else ("--train-per-class", str(count))),
        *("--method", cell.method),
        *("--seed", str(cell.seed)),
        *("--steps", str(PUBLISHED)),
        *dict(cell.target.arguments).get(cell.method.removesuffix(DTNH), ()),
        *common,
    ]


def settings(cell: Cell, common: Sequence[str]) -> Settings:
    """Return the settings that the command makes of the arguments; it exits if there are none."""
    parser: ArgumentParser = Parser(prog="python -m optax_dtnh.finetune train", allow_abbrev=False)
    add_options(parser)
    return settings_of(parser.parse_args(arguments(cell, common)))
