"""A comparison from its start to the model: scores on folds, choice, final runs, report."""

import sys
from pathlib import Path

from optax_dtnh.finetune import interrupts, log, run_folder
from optax_dtnh.finetune.compare import figure, record, report, result, table, work
from optax_dtnh.finetune.compare.candidates import Plan, with_length
from optax_dtnh.finetune.compare.final import Tested, final_runs
from optax_dtnh.finetune.compare.memory import Fold, folds_of, images_of, is_in_memory, split
from optax_dtnh.finetune.compare.record import Scores
from optax_dtnh.finetune.compare.training import Stopped, Trainer
from optax_dtnh.finetune.run import Run, check_apart, described_run, layers_of, open_run
from optax_dtnh.finetune.settings import FINETUNE
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
    with run_folder.locked(out):
        origins = {name: fact.origin for name, fact in run.told.items()}
        run_folder.claim(out, settings, run.facts | plan.asked, origins)
        if (found := record.finished(out)) is not None:
            print(f"The comparison in {out} is finished. {found['why']}")
            return
        images = images_of(run.data.train, run.preprocessing)
        folds = folds_of(images, labels, plan.folds)
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
    print("\n".join([*table.lines(scores, list(plan.settings)), why]), flush=True)
    tested = final_runs(plan, run, chosen, out)
    _write(plan, run, scores, tested, out)
    files = f"The model is in {out / CHOSEN}, and the report is {out / record.REPORT}"
    print(report.in_test(tested) + files)


def _write(plan: Plan, run: Run, scores: Scores, tested: list[Tested], out: Path) -> None:
    """Write what is finished: the figure, the result and, the last of them, the report."""
    found = result.of(plan, run, scores) | {"test": result.of_test(tested)}
    log.save(out / record.FIGURE, figure.of_weights(scores, list(plan.settings)))
    run_folder.write_json(out / record.RESULT, found)
    run_folder.save_text(out / record.REPORT, report.page(plan, run, scores, found, tested))


def _described(plan: Plan, folds: list[Fold]) -> list[str]:
    """Return in lines what the comparison is about to do."""
    steps = plan.settings[plan.trained[0]].steps
    runs, sizes = len(work.jobs(plan)), (len(folds[0].train), len(folds[0].test))
    where = "in memory" if is_in_memory(folds[0].train) else "decoded anew in each run"
    return [
        f"{len(plan.settings)} candidates on {plan.folds} folds of {sizes[0]} training and "
        f"{sizes[1]} validation images, seeds per fold: {plan.seeds}; images {where}",
        f"{runs} runs of {steps} steps; then plain fine-tuning and the choice on all images",
    ]
