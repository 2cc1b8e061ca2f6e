"""The record's text: what each decision changes against the plain regularizer, seed by seed."""

from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import mean_interval
from benchmarks.real import cells, pages
from benchmarks.real.cells import ASIDE, BAD, GOOD, SOURCES, TUNING_SEEDS, WEIGHTS, Run
from benchmarks.real.measures import UNITS
from benchmarks.real.selection import USUAL, against_plain, difference, fine_tuning, headline, mean

MEANS = ("training_loss", "forgetting", "conflict", "cosine", "removed", "pull")
PARTS = ("whole network", "last stage")  # the figure has the others


def row(results: Results, cell: Results) -> dict[str, str]:
    """Return one line of the table of all cells."""
    other = [f"{k} {cell[k]}" for k in USUAL if k != "source" and cell[k] != USUAL[k]]
    name = f"{cell['regularizer']} {cell['weight']:.3g}" if cell["weight"] else "fine-tuning"
    compared = against_plain(results, cell) if cell["weight"] else None
    known = {k.replace("_", " "): mean(cell[k]) for k in MEANS}
    return {
        "source": cell["source"],
        "regularizer": ", ".join([name, *other]),
        "decision": cell["method"] if cell["weight"] else "",
        "rate": f"{cell['rate']:g}",
        "seeds": str(len(cell["seeds"])),
        "accuracy": str(mean_interval(cell["accuracy"])),
        "difference": compared.marked() if compared else "",
        **{k: "" if x is None else f"{round(x, 6):.3g}" for k, x in known.items()},
    }


def shares(results: Results) -> list[dict[str, str]]:
    """Return the shares that decisions would remove at the end of the plain runs."""
    found = [(s, n) for s in SOURCES for n in WEIGHTS]
    return [
        {"source": s, "regularizer": f"{n} {c['weight']:g}", "trained": part}
        | {u: " / ".join(percent(x) for x in c[f"{part}, {u}"]) for u in UNITS}
        for s, n in found
        for c in headline(results, source=s, regularizer=n, method="plain")
        for part in PARTS
    ]


def percent(share: float | None) -> str:
    """Return a share in %."""
    return "?" if share is None else f"{100 * share:.1f}"


def missing(results: Results) -> str:
    """Return how many cells are planned and not in the results, by name."""
    scale, runs = results["settings"], results["runs"]
    lines = ({**cell, "seed": seed} for cell in runs for seed in cell["seeds"])
    done = {cells.known_by(cells.run_of(line)) for line in lines}
    planned = cells.tuning(TUNING_SEEDS[: scale["tuning"]])
    if done.issuperset(planned):
        choice = cells.choose(cell for cell in runs if cell["cell"] == "tuning")
        planned = cells.chosen(choice, scale["seeds"], scale["few"])
    names = dict.fromkeys(run.cell for run in planned)
    left = {run._replace(seed=0) for run in planned if cells.known_by(run) not in done}
    every = {run._replace(seed=0) for run in planned}
    counts = {n: [sum(run.cell == n for run in x) for x in (left, every)] for n in names}
    return ", ".join(f"{name} ({n} of {of})" for name, (n, of) in counts.items() if n)


def findings(results: Results) -> list[str]:
    """Return in words what the tables say about the source, noise and what was not run."""
    found, source = [], [cell for s in SOURCES for cell in fine_tuning(results, s)]
    if len(source) == len(SOURCES):
        changed = difference(source[1], source[0])
        spoiled = [
            x for c in results["runs"] if c["cell"] == "spoiling" for x in c["training_loss"]
        ]
        found.append(
            f"Fine-tuning reaches {pages.fine_tuning(results)} % from `{GOOD}` and "
            f"{pages.shuffled(results)} % from `{BAD}`, a difference of {changed.signed()} points: "
            f"this source {'hurts' if changed.excludes_zero() else 'hardly hurts'}. The training "
            f"loss of its shuffled labels was {mean(spoiled):.2f} in the mean."
        )
    if headline(results, source=GOOD, regularizer="L2-SP", method="plain"):
        found.append(
            "If the signs of `g` and `r` were independent, a decision per element would remove "
            "half of `|r|^2`, so that half is what noise alone removes. At the end of training "
            f"with L2-SP from `{GOOD}`, {pages.removed_element(results)} % go on batches of 16."
        )
    left = missing(results)
    return [*found, f"Not run yet, of the planned cells: {left}."] if left else found


def text(results: Results) -> str:
    """Return what was found and all tables, in Markdown."""

    def order(cell: Results) -> list[str]:
        settings = [str(cell[k]) for k in Run._field_defaults]
        return [*settings, cell["regularizer"] if cell["weight"] else "", f"{cell['weight']:9.3f}"]

    kept = sorted((c for c in results["runs"] if c["cell"] not in ASIDE), key=order)
    sections = {CHANGES: [row(results, cell) for cell in kept], REMOVED: shares(results)}
    written = [f"## {name}\n\n{tables.markdown(rows)}" for name, rows in sections.items() if rows]
    return "\n\n".join([f"# {results['question']}", NOTE, *findings(results), *written])


CHANGES = "What each decision changes"
REMOVED = (
    "Share of `|r|^2` that decisions remove after plain training, on 16 / 64 / 160 images, in %"
)
NOTE = f"""\
EfficientNet-Lite0 is fine-tuned on solar cells of 64 pixels in 4 classes. The source `{GOOD}` is
its pretrained weights. The source `{BAD}` is these weights, trained on other solar cells with
shuffled labels. `accuracy` is in % with 95 % t intervals over seeds. `difference` is in points,
paired by seed: of a decision to the plain regularizer, of that to fine-tuning; bold where 0 is
outside. `forgetting` is the divergence of the 1,000 original outputs on photographs. `conflict`,
`cosine`, the share `removed` of `|r|^2` and the `pull`, `weight |r'| / |g|`, are means over the
steps of training."""
