"""What the pages quote from the record of the variants."""

import itertools
import math

from benchmarks.digits.variants import analysis
from benchmarks.digits.variants.analysis import Cell
from benchmarks.digits.variants.forms import VARIANTS, WITHOUT_REGULARIZER
from benchmarks.digits.variants.table import disguised, grouped, setting, which_form
from benchmarks.harness import tables
from benchmarks.harness.record import Results

SETTINGS = ("SGD batch 16", "SGD full batch", "Adam batch 16", "Adam full batch")
FORMS = (*VARIANTS, *reversed(WITHOUT_REGULARIZER))


def table(results: Results) -> str:
    """Return the points of every form against the plain regularizer, by setting."""
    found = _gains(analysis.cells(results))
    columns = list(itertools.product(("L2-SP", "KnowDist"), SETTINGS))
    return tables.markdown(
        [
            {"form": form}
            | {f"{name}, {where}": found.get((name, where, form)) for name, where in columns}
            for form in FORMS
            if form != "plain"
        ]
    )


def recommended(results: Results) -> str:
    """Return the form with the highest mean accuracy over weights, by situation and setting."""
    return which_form(analysis.cells(results))


def by_weight(results: Results, where: str = "SGD batch 16") -> str:
    """Return how much the weight matters to every form, with SGD and small batches."""
    cells = [cell for cell in analysis.cells(results) if setting(cell) == where]
    rows: dict[str, dict[str, str]] = {}
    for (name, form), group in grouped(cells, lambda c: (c.regularizer, c.form)).items():
        row = rows.setdefault(form, {"form": form})
        row[f"{name}: worst loss"] = str(analysis.worst(group).regret)
        row[f"{name}: range over weights"] = f"{analysis.spread(group):.1f}"
    return tables.markdown([rows[form] for form in FORMS if form in rows])


def in_disguise(results: Results) -> str:
    """Return the forms that are fine-tuning in disguise."""
    return disguised(analysis.cells(results))


def hurt(results: Results) -> str:
    """Return in how many cells every form hurts."""
    return analysis.number_hurt(analysis.cells(results))


def diverged(results: Results) -> str:
    """Return in how many cells L2-SP in Adam's metric diverged."""
    cells = [c for c in analysis.cells(results) if (c.regularizer, c.form) == ("L2-SP", "metric")]
    # The loss of a cell in which a seed diverged is NaN.
    return f"{sum(math.isnan(cell.training_loss) for cell in cells)} of {len(cells)}"


def _gains(cells: list[Cell]) -> dict[tuple[str, str, str], str]:
    groups = grouped(cells, lambda cell: (cell.regularizer, setting(cell), cell.form))
    return {key: analysis.over(group, analysis.to_plain).signed() for key, group in groups.items()}
