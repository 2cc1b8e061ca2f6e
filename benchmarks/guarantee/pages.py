"""The record of the guarantee as a table, and what the pages quote from it."""

from functools import partial

from benchmarks.guarantee.forms import DIRECTIONS, FORMS
from benchmarks.harness.record import Results
from benchmarks.harness.tables import formatted, markdown, only

ORDINARY = {"dtype": "float32", "range": "ordinary"}


def table(results: Results) -> str:
    """Return how often the regularizer raises the loss, form by optimizer, at ordinary weights."""
    return markdown([{"form": form} | _row(results, form) for form in FORMS])


def record_table(results: Results) -> str:
    """Return the same table with what the user writes for every form."""
    written = {form: {"form": f"{form} ({value.written})"} for form, value in FORMS.items()}
    return markdown([first | _row(results, form) for form, first in written.items()])


def draws(results: Results) -> str:
    """Return the number of draws behind every share."""
    return str(results["draws"])


def opposed(results: Results) -> str:
    """Return the share of exactly opposed draws that no longer descend at 1e8 times `|g|`."""
    found = only(results["opposed"], dtype="float32", ratio=1e8)
    return f"{100 * found['not_descending']:.1f} %"


def share(results: Results, form: str, optimizer: str) -> str:
    """Return what a table says of one form and optimizer."""
    row = only(results["rows"], form=form, optimizer=optimizer, **ORDINARY)
    if not row["exists"]:
        return "–"
    raised = "< 1 %" if 0 < row["raised"] < 0.005 else f"{100 * row['raised']:.0f} %"
    if row["promises"]:
        return f"{raised}; own: never" if row["own_reference"] else "never"
    return raised


def paths(results: Results) -> str:
    """Return where the paths of `guarantee.geometry` end."""
    columns = {
        "path": "{path}",
        "its end": "{end}",
        "loss there": "{loss:.2f}",
        "distance from the pretrained point": "{distance:.2f}",
    }
    return formatted(results["paths"], columns)


def _row(results: Results, form: str) -> dict[str, str]:
    return {name: share(results, form, name) for name in DIRECTIONS}


behind_momentum = partial(share, form="before", optimizer="momentum")
behind_adam = partial(share, form="before", optimizer="adam")
elements_behind_momentum = partial(share, form="per element", optimizer="momentum")
elements_behind_adam = partial(share, form="per element", optimizer="adam")
