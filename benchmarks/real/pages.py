"""What the pages quote from the records, each a short string or a table."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.real import report
from benchmarks.real.cells import BAD, BASIC, GOOD, STRONG


def strong(results: Results, methods: Sequence[str] = BASIC[1:]) -> str:
    """Return a table of the largest weights: without and with DTNH, by source."""
    accuracy, forgotten = (f"{{}}, {what}" for what in ("accuracy", "forgetting"))
    (good,), (bad,) = (report.fine_tuning(results, source) for source in (GOOD, BAD))
    bare = {cell["source"]: f"{report.mean(cell['accuracy']):.1f}" for cell in (good, bad)}
    rows = [
        {
            "method, weight": "fine-tuning",
            accuracy.format(GOOD): bare[GOOD],
            forgotten.format(GOOD): f"{report.mean(good['forgetting']):.2g}",
            accuracy.format(BAD): bare[BAD],
        }
    ]
    for name, method in ((n, m) for n in STRONG for m in methods):
        found = {
            source: [
                report.select(
                    results, source=source, regularizer=name, method=m, weight=STRONG[name]
                )[0]
                for m in (BASIC[0], method)
            ]
            for source in (GOOD, BAD)
        }
        before, after = (f"{report.mean(c['forgetting']):.2g}" for c in found[GOOD])
        rows.append(
            {
                "method, weight": f"{name} + DTNH, {method}, {STRONG[name]:g}",
                accuracy.format(GOOD): changed(*found[GOOD]),
                forgotten.format(GOOD): f"{before} → {after}",
                accuracy.format(BAD): changed(*found[BAD]),
            }
        )
    return tables.markdown(rows)


strong_finest = partial(strong, methods=BASIC[-1:])


def changed(plain: Results, cell: Results) -> str:
    """Return the accuracy without and with DTNH, and the paired difference."""
    without, protected = (f"{report.mean(c['accuracy']):.1f}" for c in (plain, cell))
    return f"{without} → {protected} ({report.difference(cell, plain).marked()})"


def failing(results: Results) -> str:
    """Return the mean accuracies of the forms per element that average, with strong L2-SP."""
    settings = [{"smoothing": decay} for decay in (0.9, 0.99)] + [{"momenta": [0.9, 0.9, 0.0]}]
    means = [_strong_l2_sp(results, BASIC[-1], **given) for given in settings]
    return f"{min(means):.0f} to {max(means):.0f}"


def plain_there(results: Results) -> str:
    """Return the mean accuracy of the plain regularizer there."""
    return f"{_strong_l2_sp(results, BASIC[0]):.0f}"


def _strong_l2_sp(results: Results, method: str, **settings: Any) -> float:
    given = {"regularizer": "L2-SP", "method": method, "weight": STRONG["L2-SP"], "source": BAD}
    (cell,) = report.select(results, **given, **settings)
    return report.mean(cell["accuracy"]) or 0.0


def knowdist(results: Results, method: str) -> str:
    """Return what a decision changes about KnowDist at the larger weight of the headline.

    The decision "plain" is compared with fine-tuning.
    """
    cell = report.headline(results, source=GOOD, regularizer="KnowDist", method=method)[-1]
    difference = report.against_plain(results, cell)
    return difference.signed() if difference else "n/a"


knowdist_gain = partial(knowdist, method="plain")
knowdist_whole = partial(knowdist, method="whole tree")
knowdist_element = partial(knowdist, method="per element")
removed_whole = partial(report.removed, unit="whole tree")
removed_element = partial(report.removed, unit="per element")
removed_full = partial(report.removed, unit="whole tree", size=-1)
