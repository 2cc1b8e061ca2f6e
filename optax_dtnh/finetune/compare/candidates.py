"""What is compared, and the options of it: methods, weights, and how each candidate is set up."""

import argparse
import math
import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optax_dtnh.finetune.arguments import add_options, arguments, settings_of, unfit
from optax_dtnh.finetune.errors import UsageError, flag
from optax_dtnh.finetune.options import count, positive, several
from optax_dtnh.finetune.settings import DEFAULTS, FINETUNE, METHODS, Settings

AVERAGE = "average"  # of the backbone before and after plain fine-tuning
DELTA = "delta"  # its weights of channels take longer than a short run
# The order in which one that is as good is preferred: no regularizer, no teacher, no DTNH first.
SIMPLEST_FIRST = (FINETUNE, AVERAGE, *(m for m in METHODS[1:] if not m.startswith(DELTA)))
OTHERS = SIMPLEST_FIRST[1:]  # which are compared with plain fine-tuning
COMPARED = OTHERS[:5]
COMMAND = "python -m optax_dtnh.finetune"
FACTORS = (0.1, 1.0, 10.0)
# Options of `train` that `compare` lacks: candidates set the first two, folds replace the others.
LEFT_OUT = ("method", "weight", "val_per_class", "val_fraction", "val_every", "patience")


class Candidate(NamedTuple):
    """A method at a weight, which is None without a regularizer."""

    method: str
    weight: float | None = None

    def __str__(self) -> str:
        """Return it for a table."""
        return self.method if self.weight is None else f"{self.method} {self.weight:g}"


REFERENCE = Candidate(FINETUNE)


class Block(NamedTuple):
    """What pairs the runs of different candidates."""

    seed: int
    fold: int  # from 0 on


class Plan(NamedTuple):
    """What a comparison does; the candidates are in order, from plain fine-tuning on."""

    settings: dict[Candidate, Settings]  # those of an ordinary run of the candidate
    asked: dict[str, Any]  # what else the scores depend on: they belong to the identity
    folds: int
    blocks: list[Block]  # all folds with the first seed, and then with the others
    budget: float  # seconds
    command: str  # with all options but the budget

    @property
    def trainings(self) -> dict[Candidate, list[Candidate]]:
        """The candidates that are trained, each with all candidates that its network scores."""
        found = {c: [c] for c in self.settings if c.method != AVERAGE}
        found[REFERENCE] += [c for c in self.settings if c.method == AVERAGE]
        return found


def add_compare_options(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Add the options of the comparison to those of its runs, and return the groups by name."""
    group = parser.add_argument_group("comparison")
    runs = "Folders of finished runs to compare, instead of --source and --data."
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help=runs)
    methods = f"Methods to compare with {FINETUNE}: {', '.join(OTHERS)} (default: "
    methods += f"{', '.join(COMPARED)})."
    named = {"nargs": "+", "choices": OTHERS, "metavar": "METHOD"}
    group.add_argument("--methods", **named, default=list(COMPARED), help=methods)
    weights = "Weights of each regularizer (default: its default weight times 0.1, 1 and 10)."
    group.add_argument("--weights", nargs="+", type=positive, metavar="X", help=weights)
    folds = "Parts of the training images, each of which validates once (default: 3)."
    group.add_argument("--folds", type=several, default=3, metavar="N", help=folds)
    seeds = "Seeds of each candidate on each fold, from --seed on (default: 1)."
    group.add_argument("--seeds", type=count, default=1, metavar="N", help=seeds)
    budget = "Minutes for all of it, the two final runs included (default: no limit)."
    group.add_argument("--budget", type=positive, metavar="MINUTES", help=budget)
    return add_options(parser, leave_out=LEFT_OUT, required=False)


def plan_of(chosen: Namespace) -> Plan:
    """Return the plan of parsed options; those that do not fit together raise a `UsageError`."""
    methods = [m for m in SIMPLEST_FIRST if m in (FINETUNE, *chosen.methods)]
    _refuse_misfits(chosen, methods)
    candidates = [Candidate(m, x) for m in methods for x in _weights(chosen, m)]
    # Those of a regularizer are not among the settings of plain fine-tuning.
    names = ["folds", "seeds", *(name for name in unfit(FINETUNE) if name != "weight")]
    asked = {"candidates": [str(candidate) for candidate in candidates]}
    seeds = range(chosen.seed, chosen.seed + chosen.seeds)
    return Plan(
        settings={candidate: _settings(chosen, candidate) for candidate in candidates},
        asked=asked | {name: getattr(chosen, name) for name in names},
        folds=chosen.folds,
        blocks=[Block(seed, fold) for seed in seeds for fold in range(chosen.folds)],
        budget=60 * (chosen.budget or math.inf),
        command=_command(chosen),
    )


def _refuse_misfits(chosen: Namespace, methods: Sequence[str]) -> None:
    """Raise a `UsageError` if something is missing, or an option is for none of the methods."""
    for name in ("source", "data"):
        if getattr(chosen, name) is None:
            wrong = f"`--{name}` should be given, got none. Give --source and --data to compare "
            raise UsageError(f"{wrong}candidates, or the folders of two or more finished runs.")
    for name, wanted in unfit(FINETUNE).items():
        option = "weights" if name == "weight" else name
        unused = all(name in unfit(method) for method in methods if method != AVERAGE)
        if unused and getattr(chosen, option) not in (None, ()):
            wrong = f"`{flag(option)}` should come with {wanted}, got --methods"
            raise UsageError(f"{wrong} {' '.join(methods)}. Leave it out.")
    if chosen.train_per_class is not None:
        check_folds(chosen.folds, chosen.train_per_class)


def check_folds(folds: int, images: int) -> None:
    """Raise a `UsageError` if the smallest class has fewer training images than there are folds."""
    if folds > images:
        raise UsageError(
            f"`--folds` should be at most {images}, the number of training images of the smallest "
            f"class, got {folds}. Lower it, or give more images of that class."
        )


def refuse_options(chosen: Namespace, parser: argparse.ArgumentParser) -> None:
    """Raise a `UsageError` if folders of runs come with an option but `--out`."""
    usual = parser.parse_args(["compare", "--out", str(chosen.out)])
    for name, value in vars(usual).items():
        if name not in ("runs", "act") and getattr(chosen, name) != value:
            raise UsageError(
                f"`{flag(name)}` should come without folders of finished runs, got "
                f"'{chosen.runs[0]}'. Leave one of them out."
            )


def _command(chosen: Namespace) -> str:
    argv = arguments(DEFAULTS | vars(chosen))
    argv += ["--methods", *chosen.methods]
    if chosen.weights:
        argv += ["--weights", *map(str, chosen.weights)]
    argv += ["--folds", str(chosen.folds), "--seeds", str(chosen.seeds), "--out", str(chosen.out)]
    return f"{COMMAND} compare {shlex.join(argv)}"


def _settings(chosen: Namespace, candidate: Candidate) -> Settings:
    """Return the settings of a run of the candidate, without options that its method lacks."""
    method = FINETUNE if candidate.method == AVERAGE else candidate.method
    values = DEFAULTS | vars(chosen) | {"method": method, "weight": candidate.weight}
    values |= {name: DEFAULTS[name] for name in unfit(method)}
    return settings_of(Namespace(**values))


def _weights(chosen: Namespace, method: str) -> Sequence[float | None]:
    default = _settings(chosen, Candidate(method)).weight
    if default is None:
        return [None]
    return sorted({*(chosen.weights or (float(f"{x * default:.6g}") for x in FACTORS))})
