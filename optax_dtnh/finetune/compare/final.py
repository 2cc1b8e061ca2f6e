"""The two runs on all training images, plain fine-tuning and the choice, and their test."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx

from optax_dtnh.finetune import evaluate, log, run_folder, step, train, trained
from optax_dtnh.finetune.compare.candidates import AVERAGE, Candidate, Plan
from optax_dtnh.finetune.compare.choice import Interval, interval
from optax_dtnh.finetune.compare.training import HALFWAY, Trained, Trainer
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.settings import FINETUNE
from optax_dtnh.finetune.trained import CHOSEN


class Tested(NamedTuple):
    """A final run and its measures on the test images."""

    name: str  # of its folder
    candidate: Candidate
    outcome: evaluate.Outcome
    log: list[dict[str, Any]]


def final_runs(plan: Plan, run: Run, chosen: Candidate, out: Path) -> list[Tested]:
    """Make the runs, each in a folder like that of any run, or resume them, and test the models.

    If plain fine-tuning is chosen, its folder has both names.
    """
    reference = plan.trained[0]
    train.train(plan.settings[reference], out / FINETUNE)
    if chosen == reference:
        _link(out)
        return [_tested(run, reference, out / FINETUNE)]
    if chosen.method == AVERAGE:
        _average(run, out)
    else:
        train.train(plan.settings[chosen], out / CHOSEN)
    both = ((reference, FINETUNE), (chosen, CHOSEN))
    return [_tested(run, candidate, out / name) for candidate, name in both]


def difference(tested: Sequence[Tested]) -> Interval | None:
    """Return the accuracy gained over plain fine-tuning, paired by image; None if it is chosen."""
    right = [found.outcome.probabilities.argmax(-1) == found.outcome.labels for found in tested]
    return interval(right[1] - right[0].astype(float)) if len(right) == 2 else None


def _link(out: Path) -> None:
    if not (out / CHOSEN).is_symlink():
        with run_folder.writing(out / CHOSEN):
            (out / CHOSEN).symlink_to(FINETUNE, target_is_directory=True)


def _average(run: Run, out: Path) -> None:
    """Write the average of the pretrained and the fine-tuned network as a finished run.

    Its settings and log are those of the fine-tuning, with a fact that tells of the average.
    """
    if run_folder.is_finished(out / CHOSEN):
        return
    settings, source = run.settings, out / FINETUNE
    run = run._replace(out=out / CHOSEN, facts=run.facts | {AVERAGE: HALFWAY})
    _, *tuned = step.split(trained.read_model(source, asdict(settings)).model)
    whole = replace(settings, freeze=())  # of which no parameter is apart
    start = Trained(None, *tuned, curve=[])
    average = Trainer(run, lambda: False).average(start, whole, run.data.train, settings.seed)
    with run_folder.locked(run.out):
        run_folder.claim(run.out, settings, run.facts)
        log.truncate(run.out / log.LOG, 0)
        for entry in log.entries(source / log.LOG):
            own = {name: x for name, x in entry.items() if not name.startswith("val_")}
            log.append(run.out / log.LOG, own)
        train.end(run, nnx.merge(*average[:3]))


def _tested(run: Run, candidate: Candidate, out: Path) -> Tested:
    model = trained.read_model(out, run_folder.recorded(out)[0])
    outcome = evaluate.outcome(model, run.data.test)
    return Tested(out.name, candidate, outcome, log.entries(out / log.LOG))
