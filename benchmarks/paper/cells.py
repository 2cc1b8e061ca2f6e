"""What a table of transfers is made of: sources, targets, methods and seeds; a cell is one run."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from optax_dtnh.finetune import options
from optax_dtnh.finetune.options import DTNH, Settings

OUT = "{out}"  # in texts: the folder of the table


class Source(NamedTuple):
    """A pretrained checkpoint.

    Attributes:
      name: In folders and tables.
      where: What `--source` of the fine-tuning command gets, None where the user has to say.
      how: The command or the steps that get it.
      trained_on: Name of the data set.
      known: Who says that it belongs into the table.
    """

    name: str
    where: str | None
    how: str
    trained_on: str
    known: str


class DataSet(NamedTuple):
    """Images with labels.

    Attributes:
      name: In the option `--data NAME=...`.
      where: What `--data` of the fine-tuning command gets, None where the user has to say.
      how: The command or the steps that get it.
      known: Who says that it belongs into the table.
    """

    name: str
    where: str | None
    how: str
    known: str


class Target(NamedTuple):
    """A task to transfer to.

    Attributes:
      name: In folders and tables.
      data: Name of its data set.
      train_per_class: Training images of each class, None for the split that the data have.
      arguments: Pairs of a regularizer and what the fine-tuning command gets with it, with or
        without DTNH.
    """

    name: str
    data: str
    train_per_class: int | None = None
    arguments: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Table(NamedTuple):
    """Every source with every target, method and seed.

    Attributes:
      question: Shown above the figure.
      sources: To start from.
      data: The data sets of the targets.
      targets: To transfer to. A source is not combined with the data that it was trained on.
      methods: As the fine-tuning command calls them.
      seeds: Of the head, the selection, the order and the augmentation of images.
      arguments: Of the fine-tuning command, for every cell.
      notes: What is documented, what is chosen, and what the numbers are.
    """

    question: str
    sources: Sequence[Source]
    data: Sequence[DataSet]
    targets: Sequence[Target]
    methods: Sequence[str]
    seeds: Sequence[int]
    arguments: Sequence[str] = ()
    notes: Sequence[str] = ()


class Cell(NamedTuple):
    """One run of the fine-tuning command."""

    source: Source
    data: DataSet
    target: Target
    method: str
    seed: int

    def __str__(self) -> str:
        """Return its name, which is its folder in that of the table."""
        return f"{self.source.name}/{self.target.name}/{self.method}/seed{self.seed}"

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

    Raises:
      ValueError: A word names nothing, or the words together name no cell.
    """
    everything = list(cells(table))
    kinds = [set(names) for names in zip(*(cell.words() for cell in everything), strict=True)]
    _refuse_unknown(words, kinds)
    wanted = [names & set(words) or names for names in kinds]
    kept = [
        cell
        for cell in everything
        if all(word in names for word, names in zip(cell.words(), wanted, strict=True))
    ]
    if not kept:
        raise ValueError(
            f"`--only` should leave a cell, got {' '.join(words)}: a source is not combined with "
            "the data it was trained on. Name another target."
        )
    return kept


def _refuse_unknown(words: Sequence[str], kinds: Sequence[set[str]]) -> None:
    for word in words:
        if not any(word in names for names in kinds):
            known = ", ".join(word for names in kinds for word in sorted(names))
            raise ValueError(f"`--only` should be among {known}, got {word}. Correct the name.")


def placed(
    table: Table, out: str | os.PathLike[str], sources: Mapping[str, str], data: Mapping[str, str]
) -> Table:
    """Return the table with the user's own files and folders, and with the folder of the table."""

    def replaced(x, places):
        where = places.get(x.name, x.where)
        return x._replace(
            where=None if where is None else where.replace(OUT, os.fspath(out)),
            how=x.how.replace(OUT, os.fspath(out)),
        )

    return table._replace(
        sources=[replaced(x, sources) for x in table.sources],
        data=[replaced(x, data) for x in table.data],
    )


def arguments(cell: Cell, common: Sequence[str]) -> list[str]:
    """Return the arguments of the fine-tuning command, but for `--out`.

    Args:
      cell: To run; what it lacks is left out.
      common: Arguments of every cell of the table.
    """
    regularizer = cell.method.removesuffix(DTNH)
    count = cell.target.train_per_class
    return [
        *("--source", cell.source.where or ""),
        *("--data", cell.data.where or ""),
        *(() if count is None else ("--train-per-class", str(count))),
        *("--method", cell.method),
        *("--seed", str(cell.seed)),
        *dict(cell.target.arguments).get(regularizer, ()),
        *common,
    ]


def settings(cell: Cell, common: Sequence[str]) -> Settings:
    """Return the settings that the fine-tuning command makes of the arguments; it exits if none."""
    complete = cell._replace(
        source=cell.source._replace(where=cell.source.where or "missing"),
        data=cell.data._replace(where=cell.data.where or "missing"),
    )
    argv = [*arguments(complete, common), "--out", str(cell)]
    return options.parse(options.parser(None), argv)[1]
