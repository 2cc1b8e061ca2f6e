"""A comparison from its start to the model: scores on folds, choice, final runs, report."""

import sys
from dataclasses import replace
from pathlib import Path

from flax import nnx

from optax_dtnh.finetune import evaluate, interrupts, log, run_folder, step, train, trained
from optax_dtnh.finetune.compare import record, report, result, work
from optax_dtnh.finetune.compare.candidates import AVERAGE, Candidate, Plan, with_length
from optax_dtnh.finetune.compare.memory import Fold, folds_of, images_of, is_in_memory, split
from optax_dtnh.finetune.compare.record import Scores
from optax_dtnh.finetune.compare.result import Tested
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
    settings = plan.settings[plan.trained[0]]
    check_apart(settings.data, out)
    run_folder.check(out, settings)
    run = open_run(settings, out)
    plan = with_length(plan, len(run.data.train))
    for candidate in plan.trained:
        layers_of(plan.settings[candidate], run.source)
    labels = run.data.train.labels
    split(labels, plan.folds)  # which refuses too many
    with run_folder.claimed(out, settings, run.facts | plan.asked, run.told):
        if (found := record.finished(out)) is not None:
            print(f"The comparison in {out} is finished. {found['why']}")
            return
        folds = folds_of(images_of(run.data.train, run.preprocessing), labels, plan.folds)
        print("\n".join([*described_run(run), *_described(plan, folds)]), flush=True)
        scores = _scored(plan, run, folds, out)
        _finish(plan, run, scores, out)


def _scored(plan: Plan, run: Run, folds: list[Fold], out: Path) -> Scores:
    """Return the scores of all short runs that fit into the budget; a signal ends the process."""
    scores = record.read(out)
    if (out / FINETUNE).exists():  # the choice is made, perhaps within a smaller budget
        return scores
    with interrupts.noticed(STOPPING) as interrupted:
        try:
            for _ in work.blocks(plan, Trainer(run, interrupted), folds, out, scores):
                _write(plan, run, scores, [], out)
            if interrupted():  # during the last evaluation
                raise Stopped
        except Stopped:
            _write(plan, run, scores, [], out)
            print("Stopped. Run the same command again to resume.", file=sys.stderr)
            sys.exit(interrupts.STATUS)
    return scores


def _finish(plan: Plan, run: Run, scores: Scores, out: Path) -> None:
    chosen, why = result.decided(plan, scores)
    print("\n".join([*result.lines(scores, list(plan.settings)), why]), flush=True)
    tested = _final_runs(plan, run, chosen, out)
    _write(plan, run, scores, tested, out)
    files = f"The model is in {out / CHOSEN}, and the report is {out / record.REPORT}"
    print(report.in_test(tested) + files)


def _final_runs(plan: Plan, run: Run, chosen: Candidate, out: Path) -> list[Tested]:
    """Make the runs, each in a folder like that of any run, or resume them, and test the models.

    If plain fine-tuning is chosen, its folder has both names.
    """
    reference = plan.trained[0]
    train.train(plan.settings[reference], out / FINETUNE)
    if chosen == reference:
        if not (out / CHOSEN).is_symlink():
            with run_folder.writing(out / CHOSEN):
                (out / CHOSEN).symlink_to(FINETUNE, target_is_directory=True)
        return [_tested(run, reference, out / FINETUNE)]
    if chosen.method == AVERAGE:
        _average(run, out)
    else:
        train.train(plan.settings[chosen], out / CHOSEN)
    both = ((reference, FINETUNE), (chosen, CHOSEN))
    return [_tested(run, candidate, out / name) for candidate, name in both]


def _write(plan: Plan, run: Run, scores: Scores, tested: list[Tested], out: Path) -> None:
    """Write what is finished: the figure, the result and, the last of them, the report."""
    found = result.of(plan, run, scores, tested)
    log.save(out / record.FIGURE, report.of_weights(scores, list(plan.settings)))
    run_folder.write_json(out / record.RESULT, found)
    run_folder.save_text(out / record.REPORT, report.page(plan, run, scores, found, tested))


def _described(plan: Plan, folds: list[Fold]) -> list[str]:
    """Return in lines what the comparison is about to do."""
    steps = plan.settings[plan.trained[0]].steps
    runs, (train, test) = len(work.jobs(plan)), folds[0]
    where = "in memory" if is_in_memory(train) else "decoded anew in each run"
    return [
        f"{len(plan.settings)} candidates on {plan.folds} folds of {len(train)} training and "
        f"{len(test)} validation images, seeds per fold: {plan.seeds}; images {where}",
        f"{runs} runs of {steps} steps; then plain fine-tuning and the choice on all images",
    ]


def _average(run: Run, out: Path) -> None:
    """Write the average of the pretrained and the fine-tuned network as a finished run.

    Its settings and log are those of the fine-tuning, with a fact that tells of the average.
    """
    if run_folder.is_finished(out / CHOSEN):
        return
    settings, source = run.settings, out / FINETUNE
    run = run._replace(out=out / CHOSEN, facts=run.facts | {AVERAGE: HALFWAY})
    tuned = step.split(trained.read_model(source).model)
    whole = replace(settings, freeze=())  # of which no parameter is apart
    average = Trainer(run, lambda: False).average(tuned, whole, run.data.train)
    with run_folder.claimed(run.out, settings, run.facts):
        of_training = (
            {name: x for name, x in entry.items() if not name.startswith("val_")}
            for entry in log.entries(source / log.LOG)
        )
        run_folder.write_lines(run.out / log.LOG, of_training)
        train.end(run, nnx.merge(*average))


def _tested(run: Run, candidate: Candidate, out: Path) -> Tested:
    outcome = evaluate.outcome(trained.read_model(out), run.data.test)
    return Tested(out.name, candidate, outcome, log.entries(out / log.LOG))
