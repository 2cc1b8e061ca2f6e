"""What the pages quote from the records, each a short string or a table."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.real import report
from benchmarks.real.cells import BAD, BASIC, GOOD, ONE_PASS, STRONG
from benchmarks.real.layers import MEAN, STEPS


def strong(results: Results, methods: Sequence[str] = BASIC[1:]) -> str:
    """Return a table of the largest weights: without and with DTNH, by source, on equal seeds."""
    named = {source: _of_strong(results, source) for source in (GOOD, BAD)}
    bare = {source: cells["fine-tuning"] for source, cells in named.items()}
    rows = [
        {
            "method, weight": "fine-tuning",
            f"{GOOD}, accuracy": f"{report.mean(bare[GOOD]['accuracy']):.1f}",
            f"{GOOD}, forgetting": f"{report.mean(bare[GOOD]['forgetting']):.2g}",
            f"{BAD}, accuracy": f"{report.mean(bare[BAD]['accuracy']):.1f}",
        }
    ]
    for name, method in ((n, m) for n in STRONG for m in methods):
        both = {s: [cells[name, m] for m in (BASIC[0], method)] for s, cells in named.items()}
        before, after = (f"{report.mean(cell['forgetting']):.2g}" for cell in both[GOOD])
        rows.append(
            {
                "method, weight": f"{name} + DTNH, {method}, {STRONG[name]:g}",
                f"{GOOD}, accuracy": changed(*both[GOOD]),
                f"{GOOD}, forgetting": f"{before} → {after}",
                f"{BAD}, accuracy": changed(*both[BAD]),
            }
        )
    return tables.markdown(rows)


def _of_strong(results: Results, source: str) -> dict[Any, Results]:
    """Return fine-tuning, and the cells of the largest weights by regularizer and method."""
    (found,) = report.fine_tuning(results, source)
    cells: dict[Any, Results] = {"fine-tuning": found}
    for name, method in ((n, m) for n in STRONG for m in BASIC):
        given = {"regularizer": name, "method": method, "weight": STRONG[name]}
        (cells[name, method],) = report.select(results, source=source, **given)
    return dict(zip(cells, report.on_equal_seeds(list(cells.values())), strict=True))


def seeds(results: Results) -> str:
    """Return the number of these seeds."""
    return str(len(_of_strong(results, GOOD)["fine-tuning"]["seeds"]))


strong_finest = partial(strong, methods=BASIC[-1:])


def changed(plain: Results, cell: Results) -> str:
    """Return the accuracy without and with DTNH, and the paired difference."""
    without, protected = (f"{report.mean(c['accuracy']):.1f}" for c in (plain, cell))
    return f"{without} → {protected} ({report.difference(cell, plain).marked()})"


def one_pass(results: Results) -> str:
    """Return a table of KnowDist with one backward pass in most steps, against the plain sum."""
    where = {f"{s}, batch {n}": {"source": s, "batch": n} for s, n in CHEAP}
    rows = [
        {"method": method}
        | {name: _against_plain(results, method=method, **given) for name, given in where.items()}
        for method in (*BASIC[1:2], *ONE_PASS)
    ]
    return tables.markdown(rows)


CHEAP = (GOOD, 16), (BAD, 16), (BAD, 160)


def _against_plain(results: Results, **settings: Any) -> str | None:
    found = report.select(results, regularizer="KnowDist", weight=STRONG["KnowDist"], **settings)
    difference = report.against_plain(results, found[0]) if found else None
    return difference.marked() if difference else None


def elsewhere(results: Results) -> str:
    """Return a table of larger batches and of AdamW, from the shuffled source."""
    rows = []
    for name, (adam, batch) in ((n, w) for n in STRONG for w in ELSEWHERE):
        given: dict[str, Any] = {"source": BAD, "regularizer": name, "batch": batch}
        if adam:
            given |= {"adam": True, "momenta": [0.0, 0.0, 0.0]}
        plain = report.select(results, **given, method="plain")
        for weight in sorted(
            {c["weight"] for c in plain if c["weight"]} if adam else {STRONG[name]}
        ):
            where = f"AdamW, batches of {batch}" if adam else f"SGD, batches of {batch}"
            row: dict[str, Any] = {
                "regularizer, weight": f"{name}, {weight:.0f}",
                "trained with": where,
            }
            for method, title in COLUMNS.items():
                (cell,) = report.select(results, **given, weight=weight, method=method)
                difference = report.against_plain(results, cell)
                row[title] = difference.marked() if difference else None
            rows.append(row)
    return tables.markdown(rows)


def adamw(results: Results, method: str, sign: int = 1) -> str:
    """Return what a decision gains with AdamW and KnowDist at the larger weight, in points."""
    given: dict[str, Any] = {"adam": True, "momenta": [0.0, 0.0, 0.0], "regularizer": "KnowDist"}
    cell = report.select(results, **given, source=BAD, method=method)[-1]
    difference = report.against_plain(results, cell)
    return str(difference._replace(mean=sign * difference.mean)) if difference else "n/a"


adamw_lost = partial(adamw, method="plain", sign=-1)
adamw_regained = partial(adamw, method="whole tree")
ELSEWHERE = ((False, 16), (False, 64), (False, 160), (True, 16))
COLUMNS = {
    "plain": "plain, to fine-tuning",
    "whole tree": "whole tree",
    "per element": "per element",
}


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


def by_part(results: Results) -> str:
    """Return a table of the parts of the network, means over seeds."""
    found: dict[str, dict[str, str]] = {}
    for row, (quantity, of) in itertools.product(results["rows"], BY_PART.items()):
        if row["of"] == of:
            line = found.setdefault(row["part"], {"part": row["part"]})
            line[f"{row['regularizer']}: {quantity}"] = f"{report.mean(row[quantity]):.2f}"
    return tables.markdown([*found.values()])


BY_PART = {"opposed": STEPS, "removed, per leaf": STEPS, "cosine": MEAN}
