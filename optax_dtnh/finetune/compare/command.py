"""A comparison from its start to the model: scores on folds, choice, final runs, report."""

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from flax import nnx

from optax_dtnh.finetune import evaluate, interrupts, log, run_folder, step, train, trained
from optax_dtnh.finetune.compare import report, result
from optax_dtnh.finetune.compare.candidates import AVERAGE, REFERENCE, Candidate, Plan
from optax_dtnh.finetune.compare.folds import Fold, folds_of, is_in_memory, split
from optax_dtnh.finetune.compare.scores import Scores, add_missing, read_scores
from optax_dtnh.finetune.compare.training import HALFWAY, Stopped, Trainer
from optax_dtnh.finetune.run import Run, check_apart, described_run, open_run
from optax_dtnh.finetune.settings import FINETUNE
from optax_dtnh.finetune.student import layers_of
from optax_dtnh.finetune.trained import CHOSEN

STOPPING = "Stopping. The run under way is lost, what is finished is kept. Ctrl-C again: at once."


def compare(plan: Plan, out: Path) -> None:
    """Compare the candidates on folds, and train the chosen one on all images; or resume that.

    What is unfit raises a `UsageError`, and a signal a `SystemExit` after a report.
    """
    settings = plan.settings[REFERENCE]
    check_apart(settings.data, out)
    run_folder.check(out, settings)
    run = open_run(settings, out)
    settings, images = run.settings, run.data.train
    length = {"steps": settings.steps}
    full = {c: replace(x, **length, epochs=None) for c, x in plan.settings.items()}
    plan = plan._replace(settings=full, asked=plan.asked | length)
    for own in full.values():
        layers_of(own, run.source)  # which refuses what does not fit the network
    split(images.labels, plan.folds)  # which refuses too many
    with run_folder.claimed(out, settings, run.facts | plan.asked, run.told):
        if (found := result.finished(out)) is not None:
            print(f"The comparison in {out} is finished. {found['why']}")
            return
        folds = folds_of(images, plan.folds, run.preprocessing, settings.augment)
        print("\n".join([*described_run(run), _described(plan, folds)]), flush=True)
        _finish(plan, run, _scored(plan, run, folds))


def _described(plan: Plan, folds: list[Fold]) -> str:
    runs, (train, test) = len(plan.blocks) * len(plan.trainings), folds[0]
    where = "in memory" if is_in_memory(train) else "decoded anew in each run"
    return (
        f"{len(plan.settings)} candidates, {runs} runs on {plan.folds} folds of {len(train)} "
        f"training and {len(test)} validation images, {where}; then plain fine-tuning and the "
        "choice on all images"
    )


def _scored(plan: Plan, run: Run, folds: list[Fold]) -> Scores:
    """Return the scores of all short runs that fit into the budget; a signal ends the process."""
    scores = read_scores(plan, run.out)
    if (run.out / FINETUNE).exists():  # the choice is made, perhaps within a smaller budget
        return scores
    with interrupts.noticed(STOPPING) as interrupted, suppress(Stopped):
        for _ in add_missing(plan, Trainer(run, interrupted), folds, run.out, scores):
            _write(plan, run, scores)
    if interrupted():
        _write(plan, run, scores)
        print("Stopped. Run the same command again to resume.", file=sys.stderr)
        sys.exit(interrupts.STATUS)
    return scores


def _finish(plan: Plan, run: Run, scores: Scores) -> None:
    found = result.content(plan, run.facts, scores)
    print(*result.lines(found), found["why"], sep="\n", flush=True)
    test = _final_runs(plan, run, Candidate(**found["chosen"]))
    _write(plan, run, scores, test)
    files = f"The model is in {run.out / CHOSEN}, and the report is {run.out / result.REPORT}"
    print(result.in_test(test) + files)


def _write(plan: Plan, run: Run, scores: Scores, test: dict[str, Any] | None = None) -> None:
    """Write what is finished: the figure, the result and, the last of them, the report."""
    found = result.content(plan, run.facts, scores, test)
    log.save(run.out / result.FIGURE, report.draw_weights(found))
    run_folder.write_json(run.out / result.RESULT, found)
    run_folder.save_text(run.out / result.REPORT, report.page(found, run))


def _final_runs(plan: Plan, run: Run, chosen: Candidate) -> dict[str, Any]:
    """Make the runs, each in a folder like that of any run, or resume them, and test the models.

    If plain fine-tuning is chosen, its folder has both names.
    """
    names = (FINETUNE,) if chosen == REFERENCE else (FINETUNE, CHOSEN)
    folder = run.out / CHOSEN
    train.train(plan.settings[REFERENCE], run.out / FINETUNE)
    if chosen.method == AVERAGE:
        _average(run._replace(out=folder, facts=run.facts | {AVERAGE: HALFWAY}), run.out / FINETUNE)
    elif chosen != REFERENCE:
        train.train(plan.settings[chosen], folder)
    elif not folder.is_symlink():
        with run_folder.writing(folder):
            folder.symlink_to(FINETUNE, target_is_directory=True)
    models = {name: trained.read_model(run.out / name) for name in names}
    found = {name: evaluate.outcome(model, run.data.test) for name, model in models.items()}
    right = [outcome.right.astype(float) for outcome in found.values()]
    gain = None if chosen == REFERENCE else result.estimate(right[1] - right[0])
    return {name: outcome.measures for name, outcome in found.items()} | {"difference": gain}


def _average(run: Run, tuned: Path) -> None:
    """Write the average of the pretrained and the fine-tuned network as a finished run.

    Its settings and log are those of the fine-tuning, with a fact that tells of the average.
    """
    if run_folder.is_finished(run.out):
        return
    network = step.split(trained.read_model(tuned).model)
    whole = replace(run.settings, freeze=())  # of which no parameter is apart
    average = Trainer(run, lambda: False).average(network, whole, run.data.train)
    with run_folder.claimed(run.out, run.settings, run.facts):
        of_training = (
            {name: x for name, x in entry.items() if not name.startswith("val_")}
            for entry in log.entries(tuned / log.LOG)
        )
        run_folder.write_lines(run.out / log.LOG, of_training)
        train.end(run, nnx.merge(*average))
