"""What is compared, and the options of it: methods, weights, and how each candidate is set up."""

import argparse
import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optax_dtnh.finetune.arguments import add_options, arguments, resolved, settings_of, unfit
from optax_dtnh.finetune.errors import UsageError, flag
from optax_dtnh.finetune.options import count, positive, several
from optax_dtnh.finetune.settings import (
    DEFAULT_WEIGHTS,
    DEFAULTS,
    DTNH,
    FINETUNE,
    METHODS,
    Settings,
)

AVERAGE = "average"  # of the backbone before and after plain fine-tuning
DELTA = "delta"  # its weights of channels take longer than a short run
# The order in which one that is as good is preferred: no regularizer, no teacher, no DTNH first.
SIMPLEST_FIRST = (FINETUNE, AVERAGE, *(m for m in METHODS[1:] if not m.startswith(DELTA)))
OTHERS = SIMPLEST_FIRST[1:]  # which are compared with it
COMPARED = OTHERS[:5]
COMMAND = "python -m optax_dtnh.finetune"
FACTORS = (0.1, 1.0, 10.0)
# Each candidate has its own of the former, and the folds are there instead of the others.
LEFT_OUT = ("method", "weight", "val_per_class", "val_fraction", "val_every", "patience")


class Candidate(NamedTuple):
    """A method at a weight, which is None without a regularizer."""

    method: str
    weight: float | None = None

    def __str__(self) -> str:
        """Return it for a table."""
        return self.method if self.weight is None else f"{self.method} {self.weight:g}"


class Plan(NamedTuple):
    """What a comparison does; the candidates are in order, from plain fine-tuning on."""

    settings: dict[Candidate, Settings]  # those of an ordinary run of the candidate
    asked: dict[str, Any]  # what else the scores depend on: they belong to the identity
    folds: int
    seeds: int
    budget: float | None  # seconds
    command: str  # with all options but the budget

    @property
    def trained(self) -> list[Candidate]:
        """The candidates that need a training of their own."""
        return [candidate for candidate in self.settings if candidate.method != AVERAGE]


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
    for name in ("source", "data"):
        if getattr(chosen, name) is None:
            raise UsageError(
                f"`--{name}` should be given, got none. Give --source and --data to compare "
                "candidates, or the folders of two or more finished runs."
            )
    methods = {FINETUNE, *chosen.methods}
    _refuse_unused(chosen, methods)
    candidates = _candidates([m for m in SIMPLEST_FIRST if m in methods], chosen.weights)
    settings = {candidate: settings_for(chosen, candidate) for candidate in candidates}
    asked = {"candidates": [str(candidate) for candidate in candidates]}
    names = ("folds", "seeds", *(name for name in unfit(FINETUNE) if name != "weight"))
    asked |= {name: getattr(chosen, name) for name in names}
    return Plan(
        settings,
        asked,
        chosen.folds,
        chosen.seeds,
        None if chosen.budget is None else 60 * chosen.budget,
        _command_of(chosen),
    )


def with_length(plan: Plan, images: int) -> Plan:
    """Return the plan with the length of all runs in steps, for this number of training images.

    Short runs are as long as those on all images.
    """
    settings = {candidate: resolved(x, images) for candidate, x in plan.settings.items()}
    steps = settings[plan.trained[0]].steps
    return plan._replace(settings=settings, asked=plan.asked | {"steps": steps})


def _command_of(chosen: Namespace) -> str:
    argv = arguments(DEFAULTS | vars(chosen))
    argv += ["--methods", *chosen.methods]
    if chosen.weights:
        argv += ["--weights", *(f"{x:g}" for x in chosen.weights)]
    argv += ["--folds", str(chosen.folds), "--seeds", str(chosen.seeds), "--out", str(chosen.out)]
    return f"{COMMAND} compare {shlex.join(argv)}"


def refuse_options(chosen: Namespace, parser: argparse.ArgumentParser) -> None:
    """Raise a `UsageError` if folders of runs come with an option but `--out`."""
    usual = parser.parse_args(["compare", "--out", str(chosen.out)])
    for name, value in vars(usual).items():
        if name not in ("runs", "act") and getattr(chosen, name) != value:
            raise UsageError(
                f"`{flag(name)}` should come without folders of finished runs, got "
                f"'{chosen.runs[0]}'. Leave one of them out."
            )


def settings_for(chosen: Namespace, candidate: Candidate) -> Settings:
    """Return the settings of a run of the candidate, without options that its method lacks."""
    method = FINETUNE if candidate.method == AVERAGE else candidate.method
    values = DEFAULTS | vars(chosen) | {"method": method, "weight": candidate.weight}
    values |= {name: DEFAULTS[name] for name in unfit(method)}
    return settings_of(Namespace(**values))


def _candidates(methods: Sequence[str], weights: Sequence[float] | None) -> list[Candidate]:
    found = []
    for method in methods:
        default = DEFAULT_WEIGHTS.get(method.removesuffix(DTNH))
        if default is None:
            found.append(Candidate(method))
        else:
            tried = weights or [float(f"{factor * default:.6g}") for factor in FACTORS]
            found += [Candidate(method, weight) for weight in sorted({*tried})]
    return found


def _refuse_unused(chosen: Namespace, methods: set[str]) -> None:
    """Refuse options that none of the methods takes."""
    trained = methods - {AVERAGE}
    for name, wanted in unfit(FINETUNE).items():
        name, unused = {"weight": "weights"}.get(name, name), all(name in unfit(x) for x in trained)
        if unused and getattr(chosen, name) not in (None, ()):
            raise UsageError(
                f"`{flag(name)}` should come with {wanted}, got --methods "
                f"{' '.join(m for m in SIMPLEST_FIRST if m in methods)}. Leave it out."
            )
