"""The scores of all candidates in all cases, by short cross-validation."""

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.digits import data, experiment
from benchmarks.digits.gate import candidates, cross_validation
from benchmarks.digits.methods import PAIRS, Method, optimizers
from benchmarks.digits.variants import cases
from benchmarks.digits.variants.cases import Case, Grid
from benchmarks.harness import record
from benchmarks.harness.record import Results


class Settings(NamedTuple):
    """Settings of the cross-validation."""

    folds: int = 5
    steps: int = 50


SETTINGS = Settings()


def scored(grid: Grid, out: Path) -> Results:
    """Return the settings and the scores of a grid, from a file in `out` if they are there."""
    file = out / "scores.json"
    settings = {
        "cross_validation": SETTINGS._asdict(),
        "weights": list(grid.weights),
        "seeds": list(range(grid.seeds)),
        "cases": [case.name for case in grid.cases],
    }
    if file.exists() and json.loads(file.read_text(encoding="utf-8"))["settings"] == settings:
        return json.loads(file.read_text(encoding="utf-8"))
    scores = run(grid)
    found = {"environment": record.environment(), "settings": settings, "scores": scores}
    record.write(file, found)
    return found


def run(grid: Grid) -> list[dict[str, Any]]:
    """Return the scores by case and regularizer of a grid, lower is better."""
    digits = data.load()
    tasks = cases.tasks_of(grid, digits)
    networks = experiment.source_networks([c.source for c in grid.cases], digits, grid.seeds)
    methods = {
        (optimizer.name, regularizer): candidates.method(optimizer, regularizer)
        for optimizer, regularizer in itertools.product(optimizers(SETTINGS.steps), PAIRS)
    }

    return [
        scores_of(
            grid,
            case,
            methods[case.optimizer, regularizer],
            networks[case.source.name],
            tasks[case.shots, case.noise].target,
        )
        for case, regularizer in tqdm(list(itertools.product(grid.cases, PAIRS)), desc="decisions")
    ]


def scores_of(
    grid: Grid, case: Case, method: Method, network: Any, target: data.Images
) -> dict[str, Any]:
    """Return the scores of one case and regularizer, one list of candidates per seed."""
    folds = cross_validation.stacked_folds(target.labels, *SETTINGS, case.batch)
    logits = cross_validation.held_out_logits(
        candidates.candidates(grid.weights),
        np.arange(grid.seeds),
        network,
        target,
        folds,
        method=method,
        steps=SETTINGS.steps,
    )
    held_out = np.stack([y[i] for y, i in zip(target.labels, folds.held_out, strict=True)])
    scores = cross_validation.brier_score(np.asarray(logits), held_out)
    return {"case": case.name, "regularizer": method.regularizer, "brier": rounded(scores)}


def rounded(scores: np.ndarray) -> list[list[float | None]]:
    """Return scores to 4 digits, far finer than their noise, None for what is not finite."""
    return [[x and float(f"{x:.4g}") for x in record.numbers(row)] for row in scores]
