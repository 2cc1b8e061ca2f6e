"""What the records say: differences, regret against the better of two, and cells that all hurt.

A cell is one case, one regularizer and one weight. Its regret is what a form loses against the
better of fine-tuning and the plain regularizer, whichever has the higher mean over seeds.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.digits.methods import FINE_TUNING
from benchmarks.digits.variants.forms import BASELINES, WITHOUT_REGULARIZER, name_of, weights_of
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import Interval, mean_interval, paired_difference

WHOLE_CASES = 24
PLAIN = "plain"
FROM_FINE_TO_NONE = "momentum, per element", "per element", "per channel", "before", PLAIN
ALIKE = 0.3  # points within which two accuracies count as the same


class Cell(NamedTuple):
    """One form in one cell."""

    case: dict[str, Any]
    regularizer: str
    weight: float  # of the regularizer
    form: str
    accuracy: np.ndarray  # of the form, in %, by seed
    plain: np.ndarray  # of the plain regularizer, likewise
    fine_tuned: np.ndarray  # of fine-tuning, likewise
    training_loss: float  # mean over seeds, NaN if any seed diverged
    descent: float  # share of the steps that descend, mean over seeds

    @property
    def better(self) -> np.ndarray:
        """Accuracy by seed of the better of the two that the regret is against."""
        return max(self.plain, self.fine_tuned, key=np.mean)

    @property
    def regret(self) -> Interval:
        """What the form loses against it, in points."""
        return paired_difference(self.better, self.accuracy)

    @property
    def hurts(self) -> bool:
        """Whether this loss is beyond chance."""
        return self.regret.excludes_zero() and self.regret.mean > 0


def cells(results: Results) -> list[Cell]:
    """Return every form in every cell, those without a regularizer among the forms."""
    runs = {(r["case"], r["method"]): r for r in results["runs"]}
    found = []
    for case in results["cases"]:
        for method in results["methods"][case["optimizer"]]:
            for regularizer in regularizers(results):
                form = method.removeprefix(f"{regularizer}, ")
                if form != method or form in WITHOUT_REGULARIZER:
                    found += _cells(results, runs, case, regularizer, form)
    return found


def _cells(results: Results, runs: dict, case: dict, regularizer: str, form: str) -> list[Cell]:
    def of(form: str, quantity: str, i: int) -> Any:
        values = runs[case["name"], name_of(regularizer, form)][quantity]
        return values[min(i, len(values) - 1)]  # there may be no weight

    def cell(i: int, weight: float) -> Cell:
        treated, plain, fine_tuned = (
            100 * np.array(of(name, "correct", i)) / results["test_images"]
            for name in (form, PLAIN, FINE_TUNING)
        )
        loss = of(form, "training_loss", i)
        judged = np.nan if loss is None else loss, of(form, "descent", i)
        return Cell(case, regularizer, weight, form, treated, plain, fine_tuned, *judged)

    weights = weights_of(regularizer, results["weights"])
    return [cell(i, weight) for i, weight in enumerate(weights)]


def regularizers(results: Results) -> list[str]:
    """Return the names of the regularizers."""
    names = next(iter(results["methods"].values()))
    return list(dict.fromkeys(n.split(", ")[0] for n in names if n not in WITHOUT_REGULARIZER))


def over(cells: Sequence[Cell], difference: Callable[[Cell], np.ndarray]) -> Interval:
    """Return the mean over cells of a difference by seed, with its interval over seeds."""
    return mean_interval(np.mean([difference(cell) for cell in cells], axis=0))


def gain(over_what: str, cell: Cell) -> np.ndarray:
    """Return the difference in accuracy to another column of the cell, by seed."""
    return cell.accuracy - getattr(cell, over_what)


to_plain = partial(gain, "plain")
to_fine_tuning = partial(gain, "fine_tuned")


def worst(cells: Sequence[Cell]) -> Cell:
    """Return the cell with the largest regret."""
    return max(cells, key=lambda cell: cell.regret.mean)


def is_form(cell: Cell) -> bool:
    """Return whether the cell belongs to a form of the method, not to what it improves on."""
    return cell.form not in BASELINES


def spread(cells: Sequence[Cell]) -> float:
    """Return how far the mean accuracy of a form is apart over the weights, mean over cases."""
    by_case = grouped(cells, lambda cell: cell.case["name"]).values()
    means = ([np.mean(cell.accuracy) for cell in group] for group in by_case)
    return float(np.mean([np.ptp(of_case) for of_case in means]))


def like_fine_tuning(cells: Sequence[Cell]) -> list[float]:
    """Return the weights at which a form ends at fine-tuning's accuracy, whatever the source.

    There the interval of the difference includes 0, and its mean is within `ALIKE`.
    """

    def alike(group: Sequence[Cell]) -> bool:
        by_source = grouped(group, lambda cell: cell.case["source"]).values()
        differences = [over(here, to_fine_tuning) for here in by_source]
        return not any(d.excludes_zero() or abs(d.mean) > ALIKE for d in differences)

    by_weight = grouped(cells, lambda cell: cell.weight)
    return [weight for weight, group in by_weight.items() if alike(group)]


def hurt_by_all(cells: Iterable[Cell]) -> list[Cell]:
    """Return, for each cell in which every form of the method hurts, the one that hurts least."""
    groups = grouped(filter(is_form, cells), lambda c: (c.case["name"], c.regularizer, c.weight))
    hurt = [group for group in groups.values() if all(cell.hurts for cell in group)]
    return [min(group, key=lambda cell: cell.regret.mean) for group in hurt]


def number_hurt(cells: Sequence[Cell]) -> str:
    """Return how many cells that is, of how many."""
    number = len({(c.case["name"], c.regularizer, c.weight) for c in cells})
    return f"{len(hurt_by_all(cells))} of {number}"


def failures(results: Results) -> list[str]:
    """Return a message for every claim that does not hold; a corner of the grid is no test."""
    if len(results["cases"]) < WHOLE_CASES:
        return []
    found = cells(results)
    wrong = [] if hurt_by_all(found) else ["in no cell every form hurts"]
    for optimizer in results["methods"]:
        here = [c for c in found if c.case["optimizer"] == optimizer and c.case["batch"]]
        by_run = grouped(here, lambda c: name_of(c.regularizer, c.form))
        gains = {name: over(group, to_plain) for name, group in by_run.items()}
        inert, strong = gains["L2-SP, before"], gains["L2-SP, smoothed 0.99"]
        if strong.mean - (strong.half_width or 0) <= inert.mean + (inert.half_width or 0):
            wrong.append(f"{optimizer}: L2-SP smoothed {strong.signed()}, before {inert.signed()}")
        for name in ("KnowDist, before", "KnowDist, smoothed 0.9"):
            if not (gains[name].mean > 0 and gains[name].excludes_zero()):
                wrong.append(f"{optimizer}: {name} {gains[name].signed()}")
        if optimizer == "SGD":
            wrong += _more_sensitive({name: spread(group) for name, group in by_run.items()})
    return wrong


def _more_sensitive(ranges: dict[str, float]) -> list[str]:
    pairs = itertools.product(("L2-SP", "KnowDist"), itertools.pairwise(FROM_FINE_TO_NONE))
    named = [[name_of(regularizer, form) for form in pair] for regularizer, pair in pairs]
    return [f"{a} depends on the weight as {b}" for a, b in named if ranges[a] >= ranges[b]]


def grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Return the items by key, in the order in which the keys first occur."""
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
