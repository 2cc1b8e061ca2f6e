"""The settings as arguments of the command line: which fit together, and what they imply."""

import argparse
import math
import os
from argparse import Namespace
from collections.abc import Collection, Iterable
from dataclasses import fields, replace
from typing import Any

from optax_dtnh.finetune.errors import UsageError, flag
from optax_dtnh.finetune.options import GROUPS
from optax_dtnh.finetune.settings import (
    DECAY,
    DEFAULT_WEIGHTS,
    DEFAULTS,
    DTNH,
    EPOCHS,
    FEWEST,
    FINETUNE,
    FORMS,
    OF_MAPS,
    PUBLISHED,
    Settings,
)

WORKERS = 4  # at most, for each core: each holds batches in memory


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
    for name, fits, wanted in _misfits(settings):
        if not fits and given[name] != DEFAULTS[name]:
            value = " ".join(given[name]) if name == "layers" else given[name]
            wrong = f"`{flag(name)}` should {wanted}, got {value}"
            raise UsageError(f"{wrong}. Leave it out, or change one of them.")
    usual: dict[str, Any] = {"weight_decay": DECAY}
    if settings.regularizer != FINETUNE:
        rule = "truncate" if settings.method.endswith(DTNH) else "plain"
        usual = {"weight_decay": 0.0, "form": "before", "rule": rule}
        usual |= {"weight": DEFAULT_WEIGHTS[settings.regularizer]}
    return replace(settings, **{name: x for name, x in usual.items() if given[name] is None})


def unfit(method: str) -> dict[str, str]:
    """Return the options that a method does not take, each with what it should come with."""
    found = {}
    if method == FINETUNE:
        found |= dict.fromkeys(("weight", "form"), "a regularizer")
    if not method.endswith(DTNH):
        options = ("rule", "granularity", "reference_decay")
        found |= dict.fromkeys(options, f"a method that ends in {DTNH}")
    if method.removesuffix(DTNH) not in OF_MAPS:
        found["layers"] = " or ".join(OF_MAPS)
    return found


def _misfits(settings: Settings) -> Iterable[tuple[str, bool, str]]:
    """Return options, whether the other options fit them, and what they should do if not."""
    batch, parts = settings.batch_size, settings.micro_batches
    most = WORKERS * (os.cpu_count() or 1)
    drawn, held_out = settings.train_per_class or math.inf, settings.val_per_class or 0
    method, optimizers = settings.method, FORMS[settings.form or "before"]
    return (
        *((n, False, f"come with {x}, not {method}") for n, x in unfit(method).items()),
        ("epochs", settings.steps is None, "come without `--steps`"),
        ("val_per_class", settings.val_fraction is None, "come without `--val-fraction`"),
        ("val_per_class", held_out < drawn, f"be below --train-per-class, {drawn}"),
        ("form", settings.optimizer in optimizers, f"come with --optimizer {optimizers[0]}"),
        ("reference_decay", settings.form != "metric", "come with another form than metric"),
        ("micro_batches", batch % parts == 0, f"be a divisor of --batch-size, {batch}"),
        ("micro_batches", settings.regularizer != "bss", "come with another method than bss"),
        ("resize", settings.augment == "standard", "come with --augment standard, which crops"),
        ("workers", settings.workers <= most, f"be at most {most}, {WORKERS} for each core"),
    )


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
