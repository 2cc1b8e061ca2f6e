"""The results in Markdown: which form for which case, every form by setting, and where all hurt."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.digits.variants import analysis
from benchmarks.digits.variants.analysis import Cell, Results
from benchmarks.digits.variants.forms import FINE_TUNING, GRADIENTS_PER_STEP

COLUMNS = (
    *("setting", "regularizer", "form", "to plain", "to fine-tuning", "mean regret"),
    *("worst regret", "cells hurt", "training loss", "steps that descend", "gradients per step"),
)
TITLES = {"same": "good source", "rot90": "rotated source", "permlab": "shuffled labels"}


def markdown(results: Results) -> str:
    """Return all tables with what they mean."""
    cells = analysis.cells(results)
    return "\n\n".join(
        [
            _note(results),
            "## Which form for which case",
            _which_note(),
            which_form(cells),
            "## Where every form hurts",
            every_form_hurts(cells),
            "## Every form by setting",
            by_setting(cells),
        ]
    )


def which_form(cells: Sequence[Cell]) -> str:
    """Return the form of the highest mean accuracy, by situation, in all of them, and setting."""
    settings = list(dict.fromkeys(map(setting, cells)))
    rows = [["situation", "regularizer", *settings]]
    for (situation, regularizer), here in situations(cells).items():
        bests = [best([c for c in here if setting(c) == s]) for s in settings]
        rows.append([situation, regularizer, *map(_best, bests)])
    return table(rows)


def situations(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Return the cells by situation and regularizer, and those of all situations together."""
    groups = grouped(cells, lambda c: (situation_of(c), c.regularizer))
    of_all = grouped(cells, lambda c: ("all of these", c.regularizer))
    return {**groups, **(of_all if len(groups) > len(of_all) else {})}


def best(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of the form of the method with the highest mean accuracy."""
    by_form = grouped(filter(analysis.is_form, cells), lambda cell: cell.form)
    return max(by_form.values(), key=lambda group: np.mean([c.accuracy for c in group]))


def by_setting(cells: Sequence[Cell]) -> str:
    """Return one row per setting, regularizer and form, over all tasks and weights."""
    rows = [list(COLUMNS)]
    for (where, regularizer), group in grouped(
        cells, lambda c: (setting(c), c.regularizer)
    ).items():
        by_form = grouped(group, lambda c: c.form)
        for form in sorted(by_form, key=FINE_TUNING.__eq__):  # last
            rows.append([where, regularizer, form, *_figures(by_form[form])])
    return table(rows)


def every_form_hurts(cells: Sequence[Cell]) -> str:
    """Return in how many cells every form hurts, by situation, regularizer and weight."""
    hurt = analysis.hurt_by_all(cells)
    number = len({(c.case["name"], c.regularizer, c.weight) for c in cells})
    text = f"In {len(hurt)} of {number} cells every form of the method hurts, beyond chance."
    if not hurt:
        return text
    keys = [(situation_of(c), c.regularizer, f"{c.weight:g}") for c in hurt]
    least = grouped(hurt, lambda c: (situation_of(c), c.regularizer, f"{c.weight:g}"))
    rows = [
        ["situation", "regularizer", "weight", "cells", "regret at the worst", "of the best form"]
    ]
    for key, count in Counter(keys).most_common():
        hardest = analysis.worst(least[key])
        rows.append([*key, str(count), str(hardest.regret), hardest.form])
    return f"{text}\n\n{table(rows)}"


def setting(cell: Cell) -> str:
    """Return optimizer and batch of a cell."""
    batch = cell.case["batch"]
    return f"{cell.case['optimizer']} {f'batch {batch}' if batch else 'full batch'}"


def situation_of(cell: Cell) -> str:
    """Return source and label noise of a cell, in words."""
    noise = ", noisy target labels" if cell.case["noise"] else ""
    return TITLES[cell.case["source"]] + noise


def grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Return the items by key, in the order in which the keys first occur."""
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table, the first as its head."""
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


def _best(group: list[Cell]) -> str:
    plain, fine = (
        analysis.over(group, d).signed() for d in (analysis.to_plain, analysis.to_fine_tuning)
    )
    return f"{group[0].form}: {plain}; {fine}"


def _figures(group: list[Cell]) -> list[str]:
    losses = np.array([cell.training_loss for cell in group])
    finite = f"{np.nanmean(losses):.2f}" if np.isfinite(losses).any() else "none"
    diverged = int(np.isnan(losses).sum())
    descents = [cell.descent for cell in group]
    regularizer = None if group[0].form == FINE_TUNING else group[0].regularizer
    return [
        analysis.over(group, analysis.to_plain).signed(),
        analysis.over(group, analysis.to_fine_tuning).signed(),
        f"{np.mean([cell.regret.mean for cell in group]):.1f}",
        str(analysis.worst(group).regret),
        f"{sum(cell.hurts for cell in group)} of {len(group)}",
        f"{finite} ({diverged} diverged)" if diverged else finite,
        f"{100 * np.mean(descents):.0f} %, at least {100 * np.min(descents):.0f} %",
        str(GRADIENTS_PER_STEP[regularizer]),
    ]


def _which_note() -> str:
    return (
        "The form with the highest mean accuracy over weights and numbers of images, with its\n"
        "difference to the plain regularizer; and to fine-tuning. The best of several is a little\n"
        "too good: chance helps to choose it."
    )


def _note(results: Results) -> str:
    seeds, weights = len(results["seeds"]), ", ".join(f"{w:g}" for w in results["weights"])
    return (
        f"Test accuracy in points, {seeds} seeds, weights {weights}, 95 % t intervals of\n"
        "differences paired by seed. Seeds re-split the same 1797 images, so the intervals are a\n"
        "little optimistic. A cell is one task, optimizer, batch size, regularizer and weight.\n"
        "Regret: what a form loses against the better of fine-tuning and the plain regularizer.\n"
        "A cell is hurt where the interval of its regret lies above 0. A step descends if it\n"
        "lowers the loss on all target images to first order."
    )
