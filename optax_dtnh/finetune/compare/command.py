"""A comparison from its start to the model: scores on folds, choice, final runs, report."""

import sys
from pathlib import Path

from optax_dtnh.finetune import interrupts, methods, run_folder
from optax_dtnh.finetune.compare import record, result, table, work
from optax_dtnh.finetune.compare.candidates import Plan
from optax_dtnh.finetune.compare.memory import Fold, Images, folds_of, images_of
from optax_dtnh.finetune.compare.training import Stopped, Trainer
from optax_dtnh.finetune.run import Run, check_apart, check_head, described_run, open_run

STOPPING = "Stopping. The run under way is lost, what is finished is kept. Ctrl-C again: at once."


def compare(plan: Plan, out: Path) -> None:
    """Compare the candidates on folds, and train the chosen one on all images; or resume that.

    What is unfit raises a `UsageError`, and a signal a `SystemExit` after a report.
    """
    settings = plan.settings[plan.trained[0]]
    check_apart(settings.data, out)
    run_folder.check(out, settings)
    run = open_run(settings, out)
    for candidate in plan.trained:
        check_head(plan.settings[candidate], run.source)
        methods.layers(plan.settings[candidate], run.source)
    with run_folder.locked(out):
        origins = {name: fact.origin for name, fact in run.told.items()}
        run_folder.claim(out, settings, run.facts | plan.asked, origins)
        images = images_of(run.data.train, run.preprocessing)
        folds = folds_of(images, run.data.train.labels, plan.folds)
        print("\n".join([*described_run(run), *_described(plan, folds, images)]), flush=True)
        _compare(plan, run, folds, out)


def _compare(plan: Plan, run: Run, folds: list[Fold], out: Path) -> None:
    scores = record.read(out)
    with interrupts.noticed(STOPPING) as interrupted:
        trainer = Trainer(run, interrupted)
        try:
            work.score(plan, trainer, folds, out, scores)
            stopped = False
        except Stopped:
            stopped = True
    found = result.of(plan, run, scores)
    run_folder.write_json(out / record.RESULT, found)
    print("\n".join([*table.lines(scores, list(plan.settings)), found["why"]]), flush=True)
    if stopped:
        print("Stopped. Run the same command again to resume.", file=sys.stderr)
        sys.exit(interrupts.STATUS)


def _described(plan: Plan, folds: list[Fold], images: Images) -> list[str]:
    """Return in lines what the comparison is about to do."""
    steps = plan.settings[plan.trained[0]].steps
    runs, sizes = len(work.jobs(plan)), (len(folds[0].train), len(folds[0].test))
    where = "decoded once, in memory" if images.in_memory else "too large to be kept in memory"
    return [
        f"{len(plan.settings)} candidates on {plan.folds} folds of {sizes[0]} training and "
        f"{sizes[1]} validation images, seeds per fold: {plan.seeds}; images {where}",
        f"{runs} runs of {steps} steps; then plain fine-tuning and the choice on all images",
    ]
