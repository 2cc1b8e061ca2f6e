"""The settings as arguments of the command line: which fit together, and what they imply."""

import argparse
from argparse import Namespace
from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any, NoReturn

from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.options import GROUPS
from optax_dtnh.finetune.settings import (
    DECAY,
    DEFAULT_WEIGHTS,
    DTNH,
    FINETUNE,
    FORMS,
    OF_MAPS,
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
            groups[f.metadata["group"]].add_argument(_flag(f.name), **argument)
    return groups


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def arguments(settings: dict[str, Any]) -> list[str]:
    """Return the arguments of the command line that give these settings."""
    argv = []
    for f in fields(Settings):
        value = settings[f.name]
        if value is True:
            argv.append(_flag(f.name))
        elif value not in (f.default, [], None) and (f.name, value) != ("rule", "plain"):
            values = value if isinstance(value, (list, tuple)) else [value]
            one = len(values) == 1
            argv += [f"{_flag(f.name)}={values[0]}"] if one else [_flag(f.name), *map(str, values)]
    return argv


def check_recorded(settings: dict[str, Any]) -> None:
    """Raise a ValueError unless the command line would take the recorded settings."""
    parser = _Strict(allow_abbrev=False)
    add_options(parser)
    parsed = vars(parser.parse_args(arguments(settings))) | {"rule": settings["rule"]}
    for f in fields(Settings):
        asked, value = parsed[f.name], settings[f.name]
        if asked != (tuple(value) if isinstance(asked, tuple) else value):
            raise ValueError(f"{f.name} is {value!r:.60}")


class _Strict(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def settings_of(chosen: Namespace) -> Settings:
    """Return the settings of parsed options, completed by what the method implies.

    Options that do not fit together raise a `UsageError`.
    """
    values = {f.name: getattr(chosen, f.name) for f in fields(Settings)}
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name in ("source", "data"):  # the completion of a shell adds a slash
        given[name] = given[name].rstrip("/") or given[name]
    settings = Settings(**given)
    _check_alternatives(settings)
    _check_method(settings)
    _check_form(settings)
    _check_training(settings)
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


def _check_alternatives(settings: Settings) -> None:
    for one, other in ALTERNATIVES:
        if None not in (getattr(settings, one), getattr(settings, other)):
            flags = [f"--{name.replace('_', '-')}" for name in (one, other)]
            raise UsageError(
                f"`{flags[0]}` should come without `{flags[1]}`, got both. Leave one of them out."
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


def _check_method(settings: Settings) -> None:
    for name, wanted in unfit(settings.method).items():
        if getattr(settings, name) not in (None, ()):
            raise UsageError(
                f"`{_flag(name)}` should come with {wanted}, got --method {settings.method}. Leave "
                "it out."
            )


def _check_form(settings: Settings) -> None:
    form, optimizer = settings.form or "before", settings.optimizer
    if optimizer not in FORMS[form]:
        raise UsageError(
            f"`--form {form}` should come with --optimizer {FORMS[form][0]}, got {optimizer}. Set "
            "it, or choose --form decoupled."
        )
    if form == "metric" and settings.reference_decay is not None:
        raise UsageError(
            "`--reference-decay` should come with another form than metric, which protects the "
            "gradient of this batch alone. Leave it out."
        )


def _check_training(settings: Settings) -> None:
    batch, parts = settings.batch_size, settings.micro_batches
    if batch % parts:
        raise UsageError(
            f"`--micro-batches` should be a divisor of --batch-size, {batch}, got {parts}. Change "
            "one of them."
        )
    if parts > 1 and settings.regularizer == "bss":
        raise UsageError(
            f"`--micro-batches` should come with another method than {settings.method}, whose "
            f"value is that of the whole batch, got {parts}. Leave it out."
        )
    if settings.augment == "none" and settings.resize is not None:
        raise UsageError(
            f"`--resize` should come with --augment standard, which crops, got {settings.resize}. "
            "Leave it out."
        )
