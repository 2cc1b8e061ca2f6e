"""The record: cells of runs by seed, compared with plain regularizers, in tables and words."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import Interval, mean_interval, paired_difference
from benchmarks.real import cells
from benchmarks.real.cells import (
    ASIDE,
    BAD,
    BASIC,
    GOOD,
    MOMENTUM,
    SOURCES,
    TUNING_SEEDS,
    WEIGHTS,
    Run,
)
from benchmarks.real.measures import TRAINED, UNITS

USUAL = {**Run._field_defaults, "momenta": list(MOMENTUM)}  # as read from a file
SETTINGS = [name for name in Run._fields if name not in ("cell", "seed")]
MEANS = ("frozen", "training_loss", "forgetting", "conflict", "cosine", "removed", "pull")


def grouped(lines: Iterable[Results]) -> list[Results]:
    """Return one entry for each cell, lists by seed; at the end, means by number of images."""
    found: dict[str, list[Results]] = {}
    for line in lines:
        aside = line["cell"] if line["cell"] in ASIDE else ""
        found.setdefault(aside + str([line[k] for k in SETTINGS]), []).append(line)
    return [_together(sorted(cell, key=lambda line: line["seed"])) for cell in found.values()]


def _together(cell: Sequence[Results]) -> Results:
    common = ("cell", *SETTINGS, "images", "session")
    found = {k: cell[0][k] for k in common} | {"seeds": [line["seed"] for line in cell]}
    for key in [k for k in cell[0] if k not in (*common, "seed")]:
        values = [line[key] for line in cell]
        of_sizes = isinstance(values[0], list)
        found[key] = [mean(x) for x in zip(*values, strict=True)] if of_sizes else values
    return found


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known."""
    known = [x for x in values if x is not None]
    return float(f"{np.mean(known):.4g}") if known else None


def select(results: Results, **settings: Any) -> list[Results]:
    """Return the cells with these settings, and the usual ones where none are given, by weight."""
    wanted = {**USUAL, **settings}
    found = [c for c in results["runs"] if c["cell"] not in ASIDE and wanted.items() <= c.items()]
    return sorted(found, key=lambda cell: cell["weight"])


def headline(results: Results, **settings: Any) -> list[Results]:
    """Return those of them that all seeds have run, with a regularizer."""
    whole = results["settings"]["seeds"]
    return [c for c in select(results, **settings) if c["weight"] and len(c["seeds"]) == whole]


def fine_tuning(results: Results, source: str) -> list[Results]:
    """Return the cell without a regularizer, if it was run."""
    return select(results, source=source, method="plain", weight=0.0)


def difference(cell: Results, baseline: Results) -> Interval:
    """Return how much more accurate a cell is, paired by seed."""
    a, b = (dict(zip(c["seeds"], c["accuracy"], strict=True)) for c in (cell, baseline))
    both = [seed for seed in a if seed in b]
    return paired_difference([a[seed] for seed in both], [b[seed] for seed in both])


def on_equal_seeds(cells: Sequence[Results]) -> list[Results]:
    """Return accuracy and forgetting of the cells, of the seeds that all of them have."""
    common = sorted(set.intersection(*(set(cell["seeds"]) for cell in cells)))
    places = [[cell["seeds"].index(seed) for seed in common] for cell in cells]
    return [
        {"seeds": common} | {k: [cell[k][i] for i in at] for k in ("accuracy", "forgetting")}
        for cell, at in zip(cells, places, strict=True)
    ]


def against_plain(results: Results, cell: Results) -> Interval | None:
    """Return the difference to the plain regularizer, or to fine-tuning if it is that."""
    settings = {key: cell[key] for key in SETTINGS} | {"method": "plain", "smoothing": 0.0}
    if not cell["adam"]:
        settings["momenta"] = list(MOMENTUM)
    if cell["method"] == "plain":
        settings |= {"weight": 0.0, "regularizer": "L2-SP"}
        del settings["rate"]
    found = select(results, **settings) if cell["weight"] else []
    return difference(cell, found[0]) if found else None


def removed(results: Results, unit: str, size: int = 0) -> str:
    """Return the share of L2-SP removed, from ImageNet, over the weights, in %."""
    found = headline(results, source=GOOD, regularizer="L2-SP", method="plain")
    shares = [100 * (cell[f"everything, {unit}"][size] or 0) for cell in found]
    return f"{min(shares):.2g} to {max(shares):.2g}"


def row(results: Results, cell: Results) -> dict[str, str]:
    """Return one line of the table of all cells."""
    other = [f"{k} {cell[k]}" for k in USUAL if k != "source" and cell[k] != USUAL[k]]
    name = f"{cell['regularizer']} {cell['weight']:.3g}" if cell["weight"] else "fine-tuning"
    compared, known = against_plain(results, cell), {k: mean(cell[k]) for k in MEANS if k in cell}
    return {
        "source": cell["source"],
        "regularizer": ", ".join([name, *other]),
        "decision": cell["method"] if cell["weight"] else "",
        "rate": f"{cell['rate']:g}",
        "seeds": str(len(cell["seeds"])),
        "accuracy": str(mean_interval(cell["accuracy"])),
        "difference": compared.marked() if compared else "",
        **{
            k.replace("_", " "): "" if x is None else f"{round(x, 6):.3g}" for k, x in known.items()
        },
    }


def shares(results: Results) -> list[dict[str, str]]:
    """Return the shares that decisions would remove at the end of the plain runs."""
    trained = TRAINED if results["first"] == next(iter(TRAINED.values())) else [next(iter(TRAINED))]
    return [
        {"source": source, "regularizer": f"{name} {cell['weight']:g}", "trained": part}
        | {u: " / ".join(f"{100 * (x or 0):.1f}" for x in cell[f"{part}, {u}"]) for u in UNITS}
        for source in SOURCES
        for name in WEIGHTS
        for cell in headline(results, source=source, regularizer=name, method="plain")
        for part in trained
    ]


def by_weight(results: Results) -> list[dict[str, str]]:
    """Return what each decision loses against fine-tuning, at its best and its worst weight."""
    rows = []
    for source, name, method in itertools.product(SOURCES, WEIGHTS, BASIC):
        base = fine_tuning(results, source)
        found = [c for c in select(results, source=source, regularizer=name, method=method)]
        lost = [(difference(base[0], c), c) for c in found if base and c["weight"]]
        if lost:
            lost.sort(key=lambda pair: pair[0].mean)
            ends = {"best": lost[0], "worst": lost[-1]}
            row = {"source": source, "regularizer": name, "decision": method}
            for end, (loss, cell) in ends.items():
                row |= {f"{end} weight": f"{cell['weight']:g}", f"lost at the {end}": loss.marked()}
            rows.append(row | {"weights": str(len(lost))})
    return rows


def missing(results: Results) -> str:
    """Return how many cells are planned and not in the results, by name."""
    scale, runs = results["settings"], results["runs"]
    lines = ({**cell, "seed": seed} for cell in runs for seed in cell["seeds"])
    done = {cells.known_by(cells.run_of(line)) for line in lines}
    planned = cells.tuning(TUNING_SEEDS[: scale["tuning"]])
    if done.issuperset(planned):
        choice = cells.choose(cell for cell in runs if cell["cell"] == "tuning")
        planned = cells.chosen(choice, scale["seeds"], scale["few"])
    every = {run._replace(seed=0) for run in planned}
    left = {run._replace(seed=0) for run in planned if cells.known_by(run) not in done}
    names = dict.fromkeys(run.cell for run in planned if run._replace(seed=0) in left)
    counts = ([sum(run.cell == name for run in x) for x in (left, every)] for name in names)
    return ", ".join(f"{name} ({n} of {of})" for name, (n, of) in zip(names, counts, strict=True))


def findings(results: Results) -> list[str]:
    """Return in words what the tables say about the source and what was not run."""
    found, source = [], [cell for s in SOURCES for cell in fine_tuning(results, s)]
    if len(source) == len(SOURCES):
        good, bad = (mean_interval(cell["accuracy"]) for cell in source)
        change = difference(source[1], source[0])
        spoiled = [
            x for c in results["runs"] if c["cell"] == "spoiling" for x in c["training_loss"]
        ]
        found.append(
            f"Fine-tuning reaches {good} % from `{GOOD}` and {bad} % from `{BAD}`, a difference of "
            f"{change.signed()} points: the source `{BAD}` "
            f"{'hurts' if change.excludes_zero() else 'hardly hurts'}. Its training loss on the "
            f"shuffled labels is {mean(spoiled):.2f} in the mean."
        )
    left = missing(results)
    return [*found, f"Not run yet, of the planned cells: {left}."] if left else found


def text(results: Results) -> str:
    """Return what was found and all tables, in Markdown."""

    def order(cell: Results) -> list[str]:
        settings = [str(cell[k]) for k in Run._field_defaults]
        return [*settings, cell["regularizer"] if cell["weight"] else "", f"{cell['weight']:9.3f}"]

    kept = sorted((c for c in results["runs"] if c["cell"] not in ASIDE), key=order)
    sections = {CHANGES: [row(results, cell) for cell in kept]}
    sections |= {LOST: by_weight(results), REMOVED: shares(results)}
    written = [f"## {name}\n\n{tables.markdown(rows)}" for name, rows in sections.items() if rows]
    note = NOTE.format(TRAINS[results["first"]])
    return "\n\n".join([f"# {results['question']}", note, *findings(results), *written])


CHANGES = "What each decision changes"
LOST = "Accuracy lost against fine-tuning, in points, over the weights that were run"
REMOVED = (
    "Share of `|r|^2` that decisions remove after plain training, on 16 / 64 / 160 images, in %"
)
TRAINS = {"stem": "all of it", "stage7": "its last stages, 1.0 of its 3.4 million parameters"}
NOTE = f"""\
EfficientNet-Lite0, {{}}, is fine-tuned on solar cells of 64 pixels in 4 classes. The source
`{GOOD}` is its pretrained weights. The source `{BAD}` is these weights, trained on other solar
cells with shuffled labels. `accuracy` is in % with 95 % t intervals over seeds. `difference` is in
points, paired by seed: of a decision to the plain regularizer, of that to fine-tuning; bold where 0
is outside. `frozen` is the accuracy of a ridge regression on the source's features. `forgetting` is
the divergence of the 1,000 original outputs on photographs. `conflict`, `cosine`, the share
`removed` of `|r|^2` and the `pull`, `weight |r'| / |g|`, are means over the steps of training; of a
decision in the features, they are those of what it has left."""
