"""What a run depends on: every setting stands once, with its default and its help."""

import argparse
import math
import re
from argparse import Namespace
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, NoReturn

from optax_dtnh.finetune.errors import UsageError

# Of the functions in `optax_dtnh.regularizers`: feature_distance and delta are means, so that their
# weights depend on no batch, resolution or width. The others are published weights.
# docs/regularizers.md, "Which weight", converts what is published for sums.
DEFAULT_WEIGHTS = {"l2_sp": 0.01, "feature_distance": 1.0, "distillation": 2.0}
DEFAULT_WEIGHTS |= {"delta": 1.0, "bss": 0.001}
DTNH, FINETUNE = "+dtnh", "finetune"
METHODS = (FINETUNE, *(name + end for name in DEFAULT_WEIGHTS for end in ("", DTNH)))
OF_MAPS = ("feature_distance", "delta")  # compare feature maps
OPTIMIZERS = ("sgd", "adam")
FORMS = {"before": OPTIMIZERS, "momentum": ("sgd",), "decoupled": OPTIMIZERS, "metric": ("adam",)}
RULES = ("truncate", "orthogonal", "drop", "cosine")
GRANULARITIES = ("tree", "leaf", "channel", "element")
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
GROUPS = ("files", "method", "training", "images", "machine")


def _numeric(what: str, kind: Callable[[str], Any], holds: Callable[[Any], bool]):
    """Return a type of `argparse`: plain numbers for which `holds` is true."""

    def parse(given: str) -> Any:
        try:
            value = kind(given) if re.fullmatch(r"[0-9.eE+-]+", given) else math.nan
        except ValueError:
            value = math.nan
        if not holds(value):
            raise argparse.ArgumentTypeError(f"it should be {what}, got {given!r}")
        return value

    return parse


number = _numeric("a number >= 0", float, lambda x: 0 <= x < math.inf)
finite = _numeric("a number", float, math.isfinite)
positive = _numeric("a number > 0", float, lambda x: 0 < x < math.inf)
fraction = _numeric("a number above 0 and below 1", float, lambda x: 0 < x < 1)
whole = _numeric("a whole number from 0 to 4294967295", int, lambda n: 0 <= n < 2**32)
count = _numeric("a whole number from 1 to 4294967295", int, lambda n: 1 <= n < 2**32)


def _option(group: str, text: str, default: Any = None, *, free: bool = False, **more: Any) -> Any:
    """Return a field that is also an option of the command, under the heading `group`.

    False makes the option a switch, () a list of names; other defaults are added to the help. A run
    may be resumed with another value of what is `free`, because no weight depends on it.
    """
    if default is False:
        more["action"] = "store_true"
    elif default == ():
        more |= {"nargs": "+", "metavar": "NAME"}
    elif default is not None:
        text = f"{text.removesuffix('.')} (default: {default})."
    if kind := more.get("type"):
        more["metavar"] = "N" if kind in (whole, count) else "X"
    more |= {"help": text, "default": default}
    return field(default=default, metadata={"group": group, "free": free, "argument": more})


_file, _method, _training, _image, _machine = (partial(_option, group) for group in GROUPS)
_WEIGHTS = ", ".join(f"{weight:g} for {name}" for name, weight in DEFAULT_WEIGHTS.items())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a run depends on, as `settings.json` keeps it; `train --help` describes it.

    `form`, `weight` and `rule` are None without a regularizer; `rule` is "plain" without DTNH.
    """

    source: str = _file(
        "ResNet, ViT or EfficientNet-Lite0: .safetensors or .pth file, or hf:OWNER/NAME.",
        metavar="FILE",
        required=True,
    )
    download: bool = _file("Fetch an hf: checkpoint that is not cached.", False, free=True)
    heads: int | None = _file(
        "Heads of a ViT (default: those of its config.json or published size).", type=count
    )
    ignore: tuple[str, ...] = _file("Tensors of the checkpoint that may stay unused.", ())
    data: str = _file(
        "Folder with a folder of images for each class, or with train and test that have such "
        "folders; or tfds:NAME.",
        metavar="DIR",
        required=True,
    )
    data_dir: str | None = _file(
        "Folder of prepared TFDS data sets (default: that of TFDS).", metavar="DIR"
    )
    labels: str | None = _file(
        "Table of path and label of the images: CSV, TSV, JSON lines or Parquet.", metavar="FILE"
    )
    classes: tuple[str, ...] = _file("Use these class folders or labels alone (default: all).", ())
    duplicates: str = _file(
        "What to do about equal images in train and test, or in two classes.",
        "warn",
        choices=("refuse", "warn", "drop"),
    )

    method: str = _method(
        f"Regularizer, with or without DTNH, or none: {', '.join(METHODS)}.",
        "l2_sp+dtnh",
        choices=METHODS,
        metavar="METHOD",
    )
    form: str | None = _method(
        "Where the regularizer enters the step, see docs/forms.md (default: before).", choices=FORMS
    )
    weight: float | None = _method(
        f"Weight of the regularizer (default: {_WEIGHTS}). feature_distance and delta are means "
        "over each feature map, not sums.",
        type=number,
    )
    rule: str | None = _method("How DTNH resolves a conflict (default: truncate).", choices=RULES)
    granularity: str | None = _method(
        "What DTNH decides about at a time (default: tree).", choices=GRANULARITIES
    )
    reference_decay: float | None = _method(
        "Decay of the averaged gradient that DTNH protects (default: no averaging).", type=fraction
    )
    layers: tuple[str, ...] = _method(
        "Feature maps to compare (default: all stages, or four blocks of a ViT).", ()
    )
    temperature: float = _method("Temperature of distillation.", 2.0, type=positive)
    head_decay: float = _method(
        "Weight decay of the new head, with a regularizer.", 0.01, type=number
    )
    weight_decay: float = _method("Weight decay of the method finetune.", 1e-4, type=number)

    optimizer: str = _training("SGD has momentum 0.9.", "sgd", choices=OPTIMIZERS)
    learning_rate: float = _training("Learning rate at the start.", 0.01, type=positive)
    schedule: str = _training(
        "step divides the learning rate by 10 after two thirds of steps; cosine decays it to 0.",
        "step",
        choices=("step", "cosine", "constant"),
    )
    batch_size: int = _training("Images in a step, over all devices.", 64, type=count)
    steps: int = _training("Number of steps.", 9000, type=count)
    seed: int = _training(
        "Seed of the new head, and of choice, order and augmentation of images.", 0, type=whole
    )

    train_per_class: int | None = _image(
        "Training images of a class (default: all); required without test images.", type=count
    )
    image_size: int | None = _image(
        "Height and width that the network sees (default: the checkpoint's, or 224).", type=count
    )
    resize: int | None = _image(
        "Height and width before cropping (default: 8/7 of --image-size).", type=count
    )
    mean: tuple[float, ...] | None = _image(
        "Mean of each channel (default: the checkpoint's, or ImageNet's).", type=finite, nargs=3
    )
    std: tuple[float, ...] | None = _image(
        "Standard deviation of each channel (default: as for --mean).", type=positive, nargs=3
    )
    interpolation: str | None = _image(
        "How images are resized (default: the checkpoint's, or bilinear).", choices=INTERPOLATIONS
    )
    skip_broken: bool = _image("Leave out images that cannot be read.", False)
    workers: int = _image("Processes that decode images; 0 uses threads.", 0, free=True, type=whole)

    dtype: str = _machine(
        "Precision of the forward and backward pass; parameters are float32.",
        "float32",
        choices=("float32", "bfloat16"),
    )
    devices: int | None = _machine("Use the first N devices (default: all).", type=count)
    fsdp: bool = _machine("Divide parameters and optimizer state among the devices.", False)
    log_every: int = _machine("Steps between two lines of the log.", 50, free=True, type=count)
    save_every: int = _machine("Steps between two checkpoints.", 500, free=True, type=count)

    @property
    def regularizer(self) -> str:
        """The method without DTNH."""
        return self.method.removesuffix(DTNH)


# A run may be resumed with other values of these.
FREE = tuple(f.name for f in fields(Settings) if f.metadata["free"])
# The opening of data takes these.
OF_DATA = "train_per_class seed skip_broken data_dir labels classes duplicates".split()


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
    """Return the arguments of the command line for settings, without those that are left out."""
    argv = []
    for f in fields(Settings):
        value = settings[f.name]
        if value is True:
            argv.append(_flag(f.name))
        elif value not in (None, False, (), []) and (f.name, value) != ("rule", "plain"):
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
    _check_method(settings)
    _check_form(settings)
    if settings.regularizer == FINETUNE:
        return settings
    weight, rule = settings.weight, settings.rule or "truncate"
    return replace(
        settings,
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
