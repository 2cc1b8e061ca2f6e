"""What does the choice of `python -m optax_dtnh.finetune compare` lose? Its rule on the digits.

    python -m benchmarks.digits.comparison

The candidates are those of the command: fine-tuning, the average of its start and end, and L2-SP
and KnowDist, plain and with DTNH, at three weights. Each is trained on folds of the target's images
and scored on the images left out. Their labels are as noisy as those that are trained on.

What each candidate reaches on test images, after a training on all of the target, is read from the
record of `benchmarks.digits.variants`. The regret of a choice is what it loses, seed by seed, to
the best candidate without DTNH: fine-tuning or a plain regularizer, by its mean over 20 seeds.

Claims:

- The mean regret of the command's choice is below that of every fixed candidate.
- Accuracy is not made safe: there are cells in which the choice loses beyond chance.

It takes 4 minutes on two cores.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.digits import mini_batches
from benchmarks.digits.data import CLASSES, Images, Task
from benchmarks.digits.methods import FINE_TUNING, RECIPE
from benchmarks.digits.network import Params
from benchmarks.digits.variants import cases, runs
from benchmarks.digits.variants.cases import SOURCES
from benchmarks.digits.variants.forms import INTERPOLATED
from benchmarks.digits.variants.table import TITLES
from benchmarks.harness import command, record, tables
from benchmarks.harness.command import Question
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import paired_difference
from optax_dtnh.finetune.compare import choice

TITLE = "What does the choice of `compare` lose?"
FOLDS, WEIGHTS = 3, (0.1, 1.0, 10.0)
GRID = cases.grid(
    *(("SGD", "Adam"), (16, None), SOURCES, (10,), (0.0, 0.4)), WEIGHTS, 20, ("plain", "before")
)
# From the simplest to the most elaborate, as in the command.
METHODS = (FINE_TUNING, INTERPOLATED, "L2-SP, plain", "L2-SP, before")
METHODS += ("KnowDist, plain", "KnowDist, before")
FIXED = {name: (name, None if name in METHODS[:2] else 1.0) for name in METHODS}
CHOSEN, HIGHEST = "`compare`", "highest validation accuracy"
WITHIN, CAUTIOUS = "one standard error alone", "only if a 95 % interval is above 0"
WITHOUT = f"{CHOSEN} among those without DTNH"
Candidate = tuple[str, float | None]  # method and weight
# In %: on test images by seed, or on validation images by seed and fold.
Accuracies = Mapping[Candidate, np.ndarray]


def folds_of(seeds: np.ndarray, networks: Params, task: Task, batches: np.ndarray | None) -> tuple:
    """Return the runs on folds: all of a seed's one after the other.

    An image that is left over is trained on in every fold.
    """
    count = len(task.target.labels[0])
    dealt = [_dealt(y, i) for i, y in zip(seeds, task.target.labels, strict=True)]
    learned, held_out = map(np.stack, zip(*dealt, strict=True))  # [seeds, folds, images]
    folds = Task(_taken(task.target, learned), _taken(task.target, held_out))
    repeated, networks = jax.tree.map(lambda x: np.repeat(x, FOLDS, axis=0), (seeds, networks))
    if batches is not None:
        sizes = learned.shape[-1], RECIPE.steps, batches.shape[-1]
        drawn = [mini_batches.draw(count * i + k, *sizes) for i in seeds for k in range(FOLDS)]
        batches = np.stack(drawn)
    return repeated, networks, folds, batches


def _dealt(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what each fold learns from and what it leaves out, stratified: images by fold."""
    shuffled = np.random.default_rng([seed, 4]).permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    size = len(labels) // FOLDS
    held_out = by_label[: FOLDS * size].reshape(size, FOLDS).T
    return np.stack([np.setdiff1d(by_label, fold) for fold in held_out]), held_out


def _taken(images: Images, which: np.ndarray) -> Images:
    """Return images by seed and fold, in one axis."""
    return Images(*(np.concatenate([x[i] for x, i in zip(a, which, strict=True)]) for a in images))


def variants() -> Results:
    """Return the record that has the accuracy on test images."""
    return record.read(command.RESULTS / "digits.variants.json")


def measure(options: Namespace) -> Results:  # noqa: ARG001
    """Train every candidate on every fold."""
    found = runs.run(GRID, folds_of)
    del found["test_images"]  # none are looked at
    sizes = {"folds": FOLDS, "validation_images": 10 * CLASSES // FOLDS}
    kept = [{k: run[k] for k in ("case", "method", "correct")} for run in found.pop("runs")]
    return {"question": TITLE, **found, **sizes, "runs": kept}


def accuracies(results: Results, case: str, images: int) -> dict[Candidate, np.ndarray]:
    """Return the accuracy of every candidate in a case, in %."""
    of_case = {run["method"]: run["correct"] for run in results["runs"] if run["case"] == case}
    found = {}
    for method in METHODS:
        weights = (None,) if method in METHODS[:2] else WEIGHTS
        for weight in weights:
            position = 0 if weight is None else results["weights"].index(weight)
            found[method, weight] = 100 * np.array(of_case[method][position]) / images
    return found


def decided(validation: Accuracies, test: Accuracies) -> dict[str, np.ndarray]:
    """Return the accuracy that every decision reaches in a case, by seed."""
    seeds = len(next(iter(validation.values())))
    choices = [choices_of({c: x[seed] for c, x in validation.items()}) for seed in range(seeds)]
    return {f"always {method}": test[candidate] for method, candidate in FIXED.items()} | {
        name: np.array([test[chosen[name]][seed] for seed, chosen in enumerate(choices)])
        for name in choices[0]
    }


def choices_of(scores: Accuracies) -> dict[str, Candidate]:
    """Return the candidate that every rule chooses, from accuracies by fold."""
    without = {c: x for c, x in scores.items() if not c[0].endswith("before")}
    decision = choice.decide(scores)
    return {
        CHOSEN: decision.chosen,
        WITHOUT: choice.decide(without).chosen,
        WITHIN: decision.picked,
        CAUTIOUS: decision.picked if decision.gain.above_zero else next(iter(scores)),
        HIGHEST: max(scores, key=lambda candidate: scores[candidate].mean()),
    }


def regrets(results: Results) -> list[dict[str, Any]]:
    """Return one row per case and decision: the regret, paired by seed."""
    reference, rows = variants(), []
    for case in results["cases"]:
        test = accuracies(reference, case["name"], reference["test_images"])
        folds = accuracies(results, case["name"], results["validation_images"])
        folds = {candidate: x.reshape(-1, results["folds"]) for candidate, x in folds.items()}
        plain = [x for (method, _), x in test.items() if method == FINE_TUNING or "plain" in method]
        best = max(plain, key=np.mean)
        for name, accuracy in decided(folds, test).items():
            regret = paired_difference(best, accuracy)
            rows.append({"case": case, "decision": name, "regret": regret})
    return rows


def summary(rows: Sequence[dict[str, Any]], decision: str) -> dict[str, Any]:
    """Return mean and worst regret of a decision over cases, and where it is beyond chance."""
    found = [row for row in rows if row["decision"] == decision]
    worst = max(found, key=lambda row: row["regret"].mean)
    beyond = [row for row in found if row["regret"].excludes_zero() and row["regret"].mean > 0]
    return {
        "decision": decision,
        "mean regret": float(np.mean([row["regret"].mean for row in found])),
        "worst regret": worst["regret"],
        "cases": len(found),
        "over a point": sum(row["regret"].mean > 1 for row in found),
        "beyond chance": len(beyond),
        "worst case": worst["case"]["name"],
    }


def decisions_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of the decisions, in order."""
    return list(dict.fromkeys(row["decision"] for row in rows))


def failures(results: Results) -> list[str]:
    """Return a message for every claim that does not hold."""
    rows = regrets(results)
    mean = {name: summary(rows, name)["mean regret"] for name in decisions_of(rows)}
    wrong = [
        f"{name} loses no more than {CHOSEN}"
        for name in mean
        if name.startswith("always") and mean[name] <= mean[CHOSEN]
    ]
    if not summary(rows, CHOSEN)["beyond chance"]:
        wrong.append(f"{CHOSEN} loses beyond chance in no case: accuracy is made safe")
    return wrong


def markdown(results: Results) -> str:
    """Return the regret of every decision: over all cases, by source and by label noise."""
    rows = regrets(results)
    parts = {"All cases": rows}
    for source, title in TITLES.items():
        parts[title.capitalize()] = [row for row in rows if row["case"]["source"] == source]
    for noise in (0.0, 0.4):
        of_noise = [row for row in rows if row["case"]["noise"] == noise]
        parts[f"{noise:.0%} of the labels redrawn"] = of_noise
    blocks = [f"# {TITLE}", NOTE]
    for title, part in parts.items():
        lines = [figures(summary(part, name)) for name in decisions_of(part)]
        blocks += [f"## {title}", tables.markdown(lines)]
    return "\n\n".join(blocks)


def figures(row: dict[str, Any]) -> dict[str, str]:
    """Return a summary as text for a table."""
    of_all = f"of {row.pop('cases')}"
    row["mean regret"] = f"{row['mean regret']:.1f}"
    for name in ("over a point", "beyond chance"):
        row[name] = f"{row[name]} {of_all}"
    return {name: str(value) for name, value in row.items()}


TRAININGS = FOLDS * (len(WEIGHTS) * 4 + 1)  # the average needs none of its own
NOTE = f"""Regret in points of test accuracy against the best candidate without DTNH, by the mean of
the case: fine-tuning, or a plain regularizer at one of the weights {WEIGHTS}. A case is a task, an
optimizer and a batch size; 95 % t intervals over 20 seeds. `always` is a candidate at weight 1.
Three rows are other rules than that of the command, whose limit of two standard errors was set with
these rows at hand. The choice costs {TRAININGS} trainings on {FOLDS - 1} of {FOLDS} parts of the
images."""

QUESTION = Question("digits.comparison", __doc__, measure, text=markdown, failures=failures)


if __name__ == "__main__":
    sys.exit(command.command(QUESTION))
