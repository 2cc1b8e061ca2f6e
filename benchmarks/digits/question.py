"""The question that the digits and their head share: measurement, text, claims and figure."""

from argparse import Namespace
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.digits import experiment, figure, table
from benchmarks.digits.methods import Method
from benchmarks.digits.tasks import CELLS
from benchmarks.harness import command, record
from benchmarks.harness.command import Question, option
from benchmarks.harness.record import Results
from optax_dtnh.finetune.options import count

WEIGHTS = (0.1, 1.0, 10.0)
SEEDS = 20
HELP = f"Run N seeds, from 0 (default: {SEEDS}); intervals need at least 2."
OPTION = option("--seeds", type=count, default=SEEDS, metavar="N", help=HELP)
Claims = Mapping[str, Mapping[str, Sequence[str]]]  # by method and verb, the cells


def question(
    name: str, doc: str | None, title: str, methods: Sequence[Method], claims: Claims
) -> Question:
    """Return the question of what `methods` reach on the transfer tasks.

    `title` is the question in a sentence. Claims say in which cells a method "gains" or "loses"
    against its baseline at the largest weight.
    """

    def measure(options: Namespace) -> Results:
        found = experiment.run(CELLS, methods, weights=WEIGHTS, seeds=options.seeds)
        return {"question": title, **found}

    return Question(
        name,
        doc,
        measure,
        table.text,
        failures=lambda results: failures(results, claims),
        draw=lambda results: figure.draw(results, title),
        options=OPTION,
        shown=lambda results: "\n\n".join([table.text(results), *against_record(name, results)]),
    )


def failures(results: Results, claims: Claims) -> list[str]:
    """Return a message for every claim that does not hold; a smaller run is no test of them."""
    if len(results["seeds"]) < SEEDS:
        return []
    wrong = []
    for method, cells_by_verb in claims.items():
        for verb, cells in cells_by_verb.items():
            for cell in cells:
                change = table.change(results, cell, method, max(results["weights"]))
                if not change.excludes_zero() or (change.mean > 0) != (verb == "gains"):
                    wrong.append(f"{method}, {cell}: {change.signed()}, expected that it {verb}")
    return wrong


def against_record(name: str, results: Results) -> list[str]:
    """Return in a sentence how far the results are from the record of the same runs, if any."""
    file = command.RESULTS / f"{name}.json"
    recorded = record.read(file) if file.is_file() else {}
    if any(recorded.get(key) != results[key] for key in ("weights", "seeds", "settings")):
        return []
    if recorded["runs"] == results["runs"]:
        return ["Every value is equal to the record's."]
    here, there = (
        np.array([np.mean(run["accuracy"]) for run in r["runs"]]) for r in (results, recorded)
    )
    furthest = np.max(np.abs(here - there))
    return [
        f"The means differ from the record's by at most {furthest:.2f} points: "
        "another processor, or other versions, round differently."
    ]
