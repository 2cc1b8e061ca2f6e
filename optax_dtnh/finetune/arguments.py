"""The settings as arguments of the command line: which fit together, and what they imply."""

import argparse
import math
from argparse import Namespace
from collections.abc import Collection, Iterator
from dataclasses import fields, replace
from typing import Any

from optax_dtnh.finetune.errors import UsageError, flag
from optax_dtnh.finetune.options import GROUPS
from optax_dtnh.finetune.settings import (
    DECAY,
    DEFAULT_WEIGHTS,
    DTNH,
    EPOCHS,
    FEWEST,
    FINETUNE,
    FORMS,
    OF_MAPS,
    PUBLISHED,
    Settings,
)

ALTERNATIVES = [("epochs", "steps"), ("val_per_class", "val_fraction")]


def add_options(
    parser: argparse.ArgumentParser, leave_out: Collection[str] = (), **changed: Any
) -> dict[str, Any]:
    """Add an option for every setting, and return the groups of `--help` by name.

    `changed` are arguments of `add_argument` to use instead for all options that have them.
    """
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for f in fields(Settings):
        if f.name not in leave_out:
            argument = f.metadata["argument"]
            argument = argument | {n: x for n, x in changed.items() if n in argument}
            groups[f.metadata["group"]].add_argument(flag(f.name), **argument)
    return groups


def arguments(settings: dict[str, Any]) -> list[str]:
    """Return the arguments of the command line that give these settings."""
    argv = []
    for f in fields(Settings):
        value = settings[f.name]
        if value is True:
            argv.append(flag(f.name))
        elif value not in (f.default, [], None) and (f.name, value) != ("rule", "plain"):
            values = value if isinstance(value, (list, tuple)) else [value]
            one = len(values) == 1
            argv += [f"{flag(f.name)}={values[0]}"] if one else [flag(f.name), *map(str, values)]
    return argv


def settings_of(chosen: Namespace) -> Settings:
    """Return the settings of parsed options, completed by what the method implies.

    Options that do not fit together raise a `UsageError`.
    """
    values = {f.name: getattr(chosen, f.name) for f in fields(Settings)}
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name in ("source", "data"):  # the completion of a shell adds a slash
        given[name] = given[name].rstrip("/") or given[name]
    settings = Settings(**given)
    for problem in (*_misfits(settings), *_misfits_of_training(settings)):
        raise UsageError(problem)
    decay = settings.weight_decay
    if settings.regularizer == FINETUNE:
        return replace(settings, weight_decay=DECAY if decay is None else decay)
    weight, rule = settings.weight, settings.rule or "truncate"
    return replace(
        settings,
        weight_decay=0.0 if decay is None else decay,
        form=settings.form or "before",
        weight=DEFAULT_WEIGHTS[settings.regularizer] if weight is None else weight,
        rule=rule if settings.method.endswith(DTNH) else "plain",
    )


def unfit(method: str) -> dict[str, str]:
    """Return which options a method does not take, each with what it should come with."""
    regularized, protected = method != FINETUNE, method.endswith(DTNH)
    of_maps = method.removesuffix(DTNH) in OF_MAPS
    options = (
        ("weight", regularized, "a regularizer"),
        ("form", regularized, "a regularizer"),
        ("rule", protected, f"a method that ends in {DTNH}"),
        ("granularity", protected, f"a method that ends in {DTNH}"),
        ("reference_decay", protected, f"a method that ends in {DTNH}"),
        ("layers", of_maps, " or ".join(OF_MAPS)),
    )
    return {name: wanted for name, fits, wanted in options if not fits}


def _misfits(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with options that do not fit together."""
    for one, other in ALTERNATIVES:
        if None not in (getattr(settings, one), getattr(settings, other)):
            yield f"`{flag(one)}` should come without `{flag(other)}`, got both. Leave one out."
    for name, wanted in unfit(settings.method).items():
        if getattr(settings, name) not in (None, ()):
            wrong = f"`{flag(name)}` should come with {wanted}, got --method {settings.method}"
            yield f"{wrong}. Leave it out."
    form, optimizer = settings.form or "before", settings.optimizer
    if optimizer not in FORMS[form]:
        wrong = f"`--form {form}` should come with --optimizer {FORMS[form][0]}, got {optimizer}"
        yield f"{wrong}. Set it, or choose --form decoupled."
    if form == "metric" and settings.reference_decay is not None:
        wrong = "`--reference-decay` should come with another form than metric, which protects the "
        yield f"{wrong}gradient of this batch alone. Leave it out."


def _misfits_of_training(settings: Settings) -> Iterator[str]:
    batch, parts = settings.batch_size, settings.micro_batches
    if batch % parts:
        wrong = f"`--micro-batches` should be a divisor of --batch-size, {batch}, got {parts}"
        yield f"{wrong}. Change one of them."
    if parts > 1 and settings.regularizer == "bss":
        wrong = f"`--micro-batches` should come with another method than {settings.method}, whose "
        yield f"{wrong}value is that of the whole batch, got {parts}. Leave it out."
    if settings.augment == "none" and settings.resize is not None:
        wrong = (
            f"`--resize` should come with --augment standard, which crops, got {settings.resize}"
        )
        yield f"{wrong}. Leave it out."


def resolved(settings: Settings, images: int) -> Settings:
    """Return the settings with the number of steps for this number of training images.

    The last epoch is rounded up to a whole step. Without a given length, it is that of `--help`.
    """
    if settings.steps is not None:
        return settings
    steps = math.ceil((settings.epochs or EPOCHS) * images / settings.batch_size)
    if settings.epochs is None:
        steps = min(max(steps, FEWEST), PUBLISHED)
    return replace(settings, steps=steps, epochs=None)
