"""The question that the digits and their head share: measurement, text, claims and figure."""

from argparse import Namespace
from collections.abc import Mapping, Sequence

from benchmarks.digits import experiment, figure, table
from benchmarks.digits.methods import Method
from benchmarks.digits.tasks import CELLS
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
