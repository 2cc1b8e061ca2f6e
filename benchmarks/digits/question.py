"""The question that the digits and their head share: options, measurement, text, claims, figure."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.digits import experiment, figure, table
from benchmarks.digits.methods import Method
from benchmarks.digits.tasks import CELLS
from benchmarks.harness import command, record
from benchmarks.harness.command import Question
from benchmarks.harness.record import Results
from optax_dtnh.finetune.errors import UsageError

WEIGHTS = (0.1, 1.0, 10.0)
SEEDS = 20
MAX_SEEDS = 100
MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6
Claims = Mapping[str, Mapping[str, str]]  # by method and cell: what it does against its baseline


def question(
    name: str, doc: str | None, title: str, methods: Sequence[Method], claims: Claims
) -> Question:
    """Return the question of what `methods` reach on the transfer tasks.

    `title` is the question in a sentence. A claim says whether a method "gains" or "loses" against
    its baseline at the largest weight.
    """

    def measure(options: Namespace) -> Results:
        weights = checked(options.seeds, options.weights)
        found = experiment.run(CELLS, methods, weights=weights, seeds=options.seeds)
        return {"question": title, **found}

    def text(results: Results) -> str:
        return f"{table.markdown(results)}\n\n{table.note(results)}"

    def shown(results: Results) -> str:
        return "\n\n".join([text(results), table.summary(results), *against_record(name, results)])

    return Question(
        name,
        doc,
        measure,
        text,
        failures=lambda results: failures(results, claims),
        draw=lambda results: figure.draw(results, title),
        options=add_options,
        shown=shown,
    )


def failures(results: Results, claims: Claims) -> list[str]:
    """Return a message for every claim that does not hold; a smaller run is no test of them."""
    if len(results["seeds"]) < SEEDS or max(results["weights"]) < max(WEIGHTS):
        return []
    return [
        f"{method}, {cell}: {verdict}, expected: {expected}"
        for method, by_cell in claims.items()
        for cell, expected in by_cell.items()
        if not (verdict := table.change(results, cell, method)).startswith(expected)
    ]


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


def add_options(parser: ArgumentParser) -> None:
    """Add `--seeds` and `--weights`."""
    add: Callable[..., Any] = parser.add_argument
    shown = " ".join(f"{weight:g}" for weight in WEIGHTS)
    help_seeds = f"Run N seeds, from 0 (default: {SEEDS})."
    help_weights = f"Weights of the regularizers (default: {shown})."
    add("--seeds", type=int, default=SEEDS, metavar="N", help=help_seeds)
    add("--weights", type=float, nargs="+", default=WEIGHTS, metavar="W", help=help_weights)


def checked(seeds: int, weights: Sequence[float]) -> list[float]:
    """Return the weights in order, each once; refuse what cannot be run."""
    if not 1 <= seeds <= MAX_SEEDS:
        raise UsageError(
            f"`--seeds` should be from 1 to {MAX_SEEDS}, got {seeds}. Intervals need at least 2."
        )
    for weight in weights:
        if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
            raise UsageError(
                f"`--weights` should be from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, got {weight:g}. "
                "Fine-tuning, which always runs, is the weight 0."
            )
    return sorted(set(weights))
