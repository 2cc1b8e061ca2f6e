"""The results in Markdown: which form for which case, every form by setting, and where all hurt."""

from collections.abc import Sequence

import numpy as np

from benchmarks.digits.variants import analysis
from benchmarks.digits.variants.analysis import Cell, grouped
from benchmarks.digits.variants.forms import MOST, WITHOUT_REGULARIZER
from benchmarks.harness import tables
from benchmarks.harness.record import Results

WHICH = """\
The form with the highest mean accuracy over weights, and its difference to fine-tuning; fine-tuning
where that is not above 0 beyond chance. The best of several is a little too good: chance helps to
choose it."""
TITLES = {"same": "good source", "rot90": "rotated source", "permlab": "shuffled labels"}


def markdown(results: Results) -> str:
    """Return all tables with what they mean."""
    cells = analysis.cells(results)
    return "\n\n".join(
        [
            _note(results),
            "## Which form for which case",
            WHICH,
            which_form(cells),
            "## Where every form hurts",
            every_form_hurts(cells),
            "## Fine-tuning in disguise",
            f"At every weight, on every source: {disguised(cells)}.",
            "## Every form by setting",
            by_setting(cells),
        ]
    )


def which_form(cells: Sequence[Cell]) -> str:
    """Return the form of the highest mean accuracy, by situation, in all of them, and setting."""
    rows = []
    for (situation, regularizer), here in situations(cells).items():
        bests = {where: _best(group) for where, group in grouped(here, setting).items()}
        rows.append({"situation": situation, "regularizer": regularizer, **bests})
    return tables.markdown(rows)


def situations(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Return the cells by situation and regularizer, and those of all situations together."""
    groups = grouped(cells, lambda c: (situation_of(c), c.regularizer))
    of_all = grouped(cells, lambda c: ("all of these", c.regularizer))
    return {**groups, **(of_all if len(groups) > len(of_all) else {})}


def by_setting(cells: Sequence[Cell]) -> str:
    """Return one row per setting, regularizer and form, over all tasks and weights."""
    rows = []
    groups = grouped(cells, lambda c: (setting(c), c.regularizer))
    for (where, regularizer), group in groups.items():
        by_form = grouped(group, lambda c: c.form)
        for form in sorted(by_form, key=WITHOUT_REGULARIZER.__contains__):  # last
            what = {"setting": where, "regularizer": regularizer, "form": form}
            rows.append({**what, **_figures(by_form[form])})
    return tables.markdown(rows)


def every_form_hurts(cells: Sequence[Cell]) -> str:
    """Return in how many cells every form hurts, by situation, regularizer and weight."""
    text = f"In {analysis.number_hurt(cells)} cells every form of the method hurts, beyond chance."
    groups = grouped(
        analysis.hurt_by_all(cells), lambda c: (situation_of(c), c.regularizer, f"{c.weight:g}")
    )
    rows = []
    for (situation, regularizer, weight), group in groups.items():
        worst = analysis.worst(group)
        what = {"situation": situation, "regularizer": regularizer, "weight": weight}
        least = {"regret at the worst": str(worst.regret), "of the best form": worst.form}
        rows.append({**what, "cells": len(group), **least})
    rows.sort(key=lambda row: -row["cells"])
    return f"{text}\n\n{tables.markdown(rows)}" if rows else text


def disguised(cells: Sequence[Cell]) -> str:
    """Return which forms end at fine-tuning's accuracy on every source at every weight."""
    groups = grouped(cells, lambda c: (c.form, c.regularizer, setting(c)))
    names = [
        " with ".join(key[:2]) + f" ({key[2]})"
        for key, group in groups.items()
        if key[0] not in WITHOUT_REGULARIZER
        and len(analysis.like_fine_tuning(group)) == len({cell.weight for cell in group})
    ]
    return "; ".join(names) or "no form"


def setting(cell: Cell) -> str:
    """Return optimizer and batch of a cell."""
    batch = cell.case["batch"]
    return f"{cell.case['optimizer']} {f'batch {batch}' if batch else 'full batch'}"


def situation_of(cell: Cell) -> str:
    """Return source and label noise of a cell, in words."""
    noise = ", noisy target labels" if cell.case["noise"] else ""
    return TITLES[cell.case["source"]] + noise


def _best(cells: Sequence[Cell]) -> str:
    by_form = grouped(cells, lambda cell: cell.form)
    form, best = max(by_form.items(), key=lambda x: np.mean([c.accuracy for c in x[1]]))
    gained = analysis.over(best, analysis.to_fine_tuning)
    helps = gained.excludes_zero() and gained.mean > 0
    return f"`{form}`, {gained.signed()}" if helps else "fine-tuning"


def _figures(group: list[Cell]) -> dict[str, str]:
    losses = np.array([cell.training_loss for cell in group])
    finite = f"{np.nanmean(losses):.2f}" if np.isfinite(losses).any() else "none"
    diverged = int(np.isnan(losses).sum())
    descents = [cell.descent for cell in group]
    return {
        "to plain": analysis.over(group, analysis.to_plain).signed(),
        "to fine-tuning": analysis.over(group, analysis.to_fine_tuning).signed(),
        "mean regret": f"{np.mean([cell.regret.mean for cell in group]):.1f}",
        "worst regret": str(analysis.worst(group).regret),
        "range over weights": f"{analysis.spread(group):.1f}",
        "as fine-tuning at": ", ".join(f"{w:g}" for w in analysis.like_fine_tuning(group)),
        "cells hurt": f"{sum(cell.hurts for cell in group)} of {len(group)}",
        "training loss": f"{finite} ({diverged} diverged)" if diverged else finite,
        "steps that descend": (
            f"{100 * np.mean(descents):.0f} %, at least {100 * np.min(descents):.0f} %"
        ),
    }


def _note(results: Results) -> str:
    seeds, weights = len(results["seeds"]), ", ".join(f"{w:g}" for w in results["weights"])
    most = "; ".join(f"{regularizer} up to {weight:g}" for regularizer, weight in MOST.items())
    return (
        f"Test accuracy in points, {seeds} seeds, weights {weights} ({most}), 95 % t intervals of\n"
        "differences paired by seed. Seeds re-split the same 1797 images, so the intervals are a\n"
        "little optimistic. A cell is one task, optimizer, batch size, regularizer and weight.\n"
        "Regret: what a form loses against the better of fine-tuning and the plain regularizer.\n"
        "A cell is hurt where the interval of its regret lies above 0. Range: highest minus\n"
        "lowest mean accuracy over weights, averaged over tasks. A form is as fine-tuning at a\n"
        "weight if, on every source, the interval of their difference includes 0 and its mean is\n"
        f"within {analysis.ALIKE:g} points. A step descends if it lowers the loss on all target\n"
        "images to first order."
    )
