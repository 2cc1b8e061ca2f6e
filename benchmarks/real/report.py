"""The record's text: what each decision changes against the plain regularizer, seed by seed."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import mean_interval, paired_difference
from benchmarks.real.cells import BAD, BASIC, GOOD, MOMENTUM, SOURCES, WEIGHTS, Run
from benchmarks.real.measures import TRAINED, UNITS

USUAL = {**Run._field_defaults, "momenta": list(MOMENTUM)}  # as read from a file
SETTINGS = [name for name in Run._fields if name not in ("cell", "seed")]
ORDER = ("source", *(k for k in Run._field_defaults if k != "source"), "regularizer")
ASIDE = ("tuning", "spoiling")
MEANS = ("training_loss", "forgetting", "conflict", "cosine", "removed", "pull")


def grouped(lines: Iterable[Results]) -> list[Results]:
    """Return one entry for each cell, lists by seed; at the end, means by number of images."""
    cells: dict[str, list[Results]] = {}
    for line in lines:
        aside = line["cell"] if line["cell"] in ASIDE else ""
        cells.setdefault(aside + str([line[k] for k in SETTINGS]), []).append(line)
    return [_together(sorted(cell, key=lambda line: line["seed"])) for cell in cells.values()]


def _together(cell: Sequence[Results]) -> Results:
    first, found = cell[0], {"seeds": [line["seed"] for line in cell]}
    for key in [k for k in first if k not in (*SETTINGS, "cell", "seed", "images", "session")]:
        values = [line[key] for line in cell]
        found[key] = [mean(x) for x in zip(*values)] if isinstance(first[key], list) else values  # noqa: B905
    return {**{k: first[k] for k in ("cell", *SETTINGS, "images", "session")}, **found}


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known."""
    known = [x for x in values if x is not None]
    return float(f"{np.mean(known):.4g}") if known else None


def select(results: Results, **settings: Any) -> list[Results]:
    """Return the cells with these settings, and the usual ones where none are given."""
    wanted = {**USUAL, **settings}
    return [c for c in results["runs"] if c["cell"] not in ASIDE and wanted.items() <= c.items()]


def accuracy(cell: Results, seeds: Sequence[int]) -> np.ndarray:
    """Return the accuracies of some seeds."""
    return np.array([cell["accuracy"][cell["seeds"].index(seed)] for seed in seeds])


def against_plain(results: Results, cell: Results) -> str:
    """Return the paired difference to the plain regularizer, or to fine-tuning if it is that."""
    settings = {key: cell[key] for key in SETTINGS} | {"method": "plain", "smoothing": 0.0}
    settings["momenta"] = cell["momenta"] if cell["adam"] else list(MOMENTUM)
    if cell["method"] == "plain":
        settings |= {"weight": 0.0, "regularizer": "L2-SP", "rate": None}
    settings = {k: v for k, v in settings.items() if v is not None}
    for baseline in select(results, **settings):
        seeds = [seed for seed in cell["seeds"] if seed in baseline["seeds"]]
        return paired_difference(accuracy(cell, seeds), accuracy(baseline, seeds)).marked()
    return ""


def row(results: Results, cell: Results) -> dict[str, str]:
    """Return one line of the table of all cells."""
    other = [f"{k} {cell[k]}" for k in USUAL if k != "source" and cell[k] != USUAL[k]]
    name = f"{cell['regularizer']} {cell['weight']:.3g}" if cell["weight"] else "fine-tuning"
    known = {k: mean(cell[k]) for k in MEANS}
    return {
        "source": cell["source"],
        "regularizer": ", ".join([name, *other]),
        "decision": cell["method"] if cell["weight"] else "",
        "rate": f"{cell['rate']:g}",
        "seeds": str(len(cell["seeds"])),
        "accuracy": str(mean_interval(cell["accuracy"])),
        "difference": against_plain(results, cell) if cell["weight"] else "",
        **{k.replace("_", " "): "" if x is None else f"{x:.3g}" for k, x in known.items()},
    }


def regret(results: Results) -> list[dict[str, str]]:
    """Return what the best and the worst weight of a decision lack to the best of everything."""
    seeds, rows = range(results["settings"]["few"]), []
    for source in SOURCES:
        found = {
            (name, method): [
                float(np.mean(accuracy(c, seeds)))
                for c in select(results, source=source, regularizer=name, method=method)
                if c["weight"]
            ]
            for name in WEIGHTS
            for method in BASIC
        }
        best = max((x for means in found.values() for x in means), default=0.0)
        rows += [
            {"source": source, "regularizer": name, "decision": method, "weights": len(x)}
            | {"best": f"{best - max(x):.1f}", "worst": f"{best - min(x):.1f}"}
            for (name, method), x in found.items()
            if x
        ]
    return rows


def shares(results: Results) -> list[dict[str, str]]:
    """Return the shares that decisions would remove at the end of the plain runs."""
    found = (c for s in SOURCES for c in select(results, source=s, method="plain") if c["weight"])
    return [
        {
            "source": c["source"],
            "regularizer": f"{c['regularizer']} {c['weight']:g}",
            "trained": part,
            "images": str(size),
            **{m: percent(c[f"{part}, {m}"][i]) for m in UNITS},
            "theory": percent(theory(c, i)) if part == "whole network" else "",
        }
        for c in found
        for part in TRAINED
        for i, size in enumerate(c["images"])
    ]


def theory(cell: Results, i: int) -> float | None:
    """Return `cos^2` on all images times `s / (1 + s)`, the part of `|g|^2` that is no noise."""
    cosine, loss_sq = cell["end_cosine"], cell["loss_sq"]
    known = None not in (cosine[-1], loss_sq[-1], loss_sq[i])
    return min(cosine[-1], 0) ** 2 * loss_sq[-1] / loss_sq[i] if known else None


def percent(share: float | None) -> str:
    """Return a share for a table."""
    return "" if share is None else f"{100 * share:.1f} %"


def text(results: Results) -> str:
    """Return all tables in Markdown, and how to read them."""
    kept = (c for c in results["runs"] if c["cell"] not in ASIDE)
    cells = sorted(kept, key=lambda c: [str(c[k]) for k in ORDER] + [c["weight"]])
    spoiled = [c for c in results["runs"] if c["cell"] == "spoiling"]
    sections = {
        "What each decision changes": [row(results, cell) for cell in cells],
        "What the best and the worst weight lack, in points": regret(results),
        "What decisions remove at the end of plain training": shares(results),
    }
    written = [f"## {name}\n\n{tables.markdown(rows)}" for name, rows in sections.items() if rows]
    losses = ", ".join(f"{mean(c['training_loss'])}" for c in spoiled)
    return "\n\n".join(
        [f"# {results['question']}", NOTE, f"Their training loss: {losses}.", *written]
    )


NOTE = f"""\
EfficientNet-Lite0 on solar cells of 64 pixels, 4 classes. Source `{GOOD}`: its weights. Source
`{BAD}`: these weights after tuning on other solar cells until their shuffled labels are memorized.
`accuracy` is in % with 95 % t intervals over seeds. `difference` is in points, paired by seed, to
the plain regularizer, of that itself to fine-tuning; bold where 0 is outside. `forgetting` is the
divergence of the 1,000 original outputs on photographs. `conflict`, `cosine`, the share `removed`
of `|r|^2` and the `pull`, `weight |r'| / |g|`, are means over the steps of training."""
