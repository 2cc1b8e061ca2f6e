"""The arguments of the command, checked before anything heavy is imported."""

import argparse
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from benchmarks.parts.options import OneLineParser

# As the authors use them, on the reductions of docs/regularizers.md, section "Which weight".
PUBLISHED_WEIGHTS = {
    "l2_sp": 0.01,
    "feature_distance": 0.01,
    "distillation": 2.0,
    "delta": 0.01,
    "bss": 0.001,
}
DTNH = "+dtnh"
FINETUNE = "finetune"
METHODS = (FINETUNE, *(name + end for name in PUBLISHED_WEIGHTS for end in ("", DTNH)))
RULES = ("truncate", "orthogonal", "drop", "cosine")
# What a run may be continued with although it was begun otherwise: it changes no weight.
FREE = ("download", "log_every", "save_every", "workers")


class Settings(NamedTuple):
    """Everything that a run depends on, as in `settings.json`.

    Attributes:
      source: The pretrained checkpoint, as `optax_dtnh.models.load_pretrained` takes it.
      download: Whether a checkpoint of the hub may be fetched.
      data: A folder of images by class, or `tfds:NAME`.
      data_dir: Where prepared TFDS sets are, None for its own choice.
      train_per_class: Number of training images of each class, None for all.
      skip_broken: Whether unreadable images are left out instead of refused.
      method: One of `METHODS`.
      weight: Of the regularizer, None without one.
      rule: How a conflict is resolved, `plain` for not at all, None without a regularizer.
      reference_decay: Of the moving average of gradients that is protected, None for this batch's.
      layers: Names of feature maps, empty for the default.
      temperature: Of distillation.
      optimizer: `sgd`, with momentum 0.9, or `adam`.
      learning_rate: At the start.
      schedule: `step`, `cosine` or `constant`.
      batch_size: Images in a step, over all devices.
      steps: Number of steps.
      image_size: Height and width that the network sees, None for the checkpoint's.
      resize: Height and width that crops for training are cut from, None for the checkpoint's.
      head_decay: Weight decay of the new head, next to a regularizer.
      weight_decay: Weight decay of everything, for the method `finetune`.
      seed: Of the head, the selection, the order and the augmentation of images.
      dtype: What the networks compute in. Parameters are float32.
      workers: Processes that decode images, 0 for none but this one.
      log_every: Steps between two lines of the log.
      save_every: Steps between two checkpoints.
      devices: How many devices to use, None for all.
      fsdp: Whether parameters and optimizer state are divided among the devices.
    """

    source: str
    download: bool
    data: str
    data_dir: str | None
    train_per_class: int | None
    skip_broken: bool
    method: str
    weight: float | None
    rule: str | None
    reference_decay: float | None
    layers: tuple[str, ...]
    temperature: float
    optimizer: str
    learning_rate: float
    schedule: str
    batch_size: int
    steps: int
    image_size: int | None
    resize: int | None
    head_decay: float
    weight_decay: float
    seed: int
    dtype: str
    workers: int
    log_every: int
    save_every: int
    devices: int | None
    fsdp: bool

    @property
    def regularizer(self) -> str:
        """The method without what is done about conflicts."""
        return self.method.removesuffix(DTNH)


class Parser(OneLineParser):
    """A parser whose errors are one line that starts with `error:`."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message."""
        self.exit(2, f"error: {' '.join(message.split())}\n")


def parser(description: str | None) -> Parser:
    """Return the parser of the command."""
    options = Parser(
        prog="python -m benchmarks.finetune",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_files(options.add_argument)
    _add_method(options.add_argument)
    _add_training(options.add_argument)
    _add_images(options.add_argument)
    _add_machine(options.add_argument)
    return options


def _add_files(add: Callable[..., Any]) -> None:
    add("--source", metavar="FILE", help="pretrained checkpoint: .safetensors, .pth or hf:...")
    add("--download", action="store_true", help="fetch an hf:... checkpoint that is not cached")
    add("--data", metavar="DIR", help="folder of images by class, or tfds:NAME")
    add("--data-dir", metavar="DIR", help="folder of prepared TFDS sets")
    add("--out", type=Path, metavar="DIR", help="folder of the run; the same command continues it")
    use = "instead of training, test the model in --out on DATA (default: that of the run)"
    add("--evaluate", nargs="?", const="", metavar="DATA", help=use)
    use = "instead of training, print what the model in --out sees in images"
    add("--predict", nargs="+", type=Path, metavar="IMAGE", help=use)


def _add_method(add: Callable[..., Any]) -> None:
    add("--method", choices=METHODS, default="l2_sp+dtnh", help="default: l2_sp+dtnh")
    shown = ", ".join(f"{name} {weight:g}" for name, weight in PUBLISHED_WEIGHTS.items())
    add("--weight", type=_number, help=f"of the regularizer (default: {shown})")
    add("--rule", choices=RULES, help="for +dtnh (default: truncate)")
    add("--reference-decay", type=_share, metavar="D", help="for +dtnh: protect averaged gradients")
    layers = "feature maps that are compared (default: the stages, or four of a ViT's blocks)"
    add("--layers", nargs="+", default=[], metavar="NAME", help=layers)
    add("--temperature", type=_positive, default=2.0, help="of distillation (default: 2)")
    add("--head-decay", type=_number, default=0.01, help="of the new head (default: 0.01)")
    add("--weight-decay", type=_number, default=1e-4, help="for finetune alone (default: 0.0001)")


def _add_training(add: Callable[..., Any]) -> None:
    add("--optimizer", choices=("sgd", "adam"), default="sgd", help="default: sgd, momentum 0.9")
    add("--learning-rate", type=_positive, default=0.01, metavar="LR", help="default: 0.01")
    schedules = "step (the default): a tenth from two thirds on; cosine: to 0; constant"
    add("--schedule", choices=("step", "cosine", "constant"), default="step", help=schedules)
    add("--batch-size", type=_count, default=64, metavar="N", help="over all devices (default: 64)")
    add("--steps", type=_count, default=9000, metavar="N", help="default: 9000")
    add("--seed", type=_whole, default=0, metavar="N", help="default: 0")


def _add_images(add: Callable[..., Any]) -> None:
    add("--train-per-class", type=_count, metavar="N", help="training images of each class")
    add("--image-size", type=_count, metavar="N", help="of a crop (default: the source's or 224)")
    add("--resize", type=_count, metavar="N", help="before it (default: in proportion, 256)")
    add("--skip-broken", action="store_true", help="leave unreadable images out, and count them")
    add("--workers", type=_whole, default=0, metavar="N", help="decoding processes (default: 0)")


def _add_machine(add: Callable[..., Any]) -> None:
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    add("--devices", type=_count, metavar="N", help="use the first N devices (default: all)")
    add("--fsdp", action="store_true", help="divide parameters among the devices")
    several = "one of several processes: as jax finds out, or HOST:PORT, how many, and which"
    add("--distributed", nargs="*", metavar="WHERE", help=several)
    add("--log-every", type=_count, default=50, metavar="N", help="steps (default: 50)")
    add("--save-every", type=_count, default=500, metavar="N", help="steps (default: 500)")


def parse(options: Parser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, Settings]:
    """Return the arguments as given, and as settings of a run where they are complete."""
    chosen = options.parse_args(argv)
    training = chosen.evaluate is None and chosen.predict is None
    for name in ("out", "source", "data") if training else ("out",):
        if not getattr(chosen, name):
            options.error(f"`--{name}` should be given, got none. {_SAY[name]}")
    if not training and chosen.evaluate is not None and chosen.predict is not None:
        options.error("`--evaluate` and `--predict` should not be given together. Choose one.")
    try:
        chosen.distributed = _address(chosen.distributed)
        return chosen, _settings(chosen)
    except ValueError as error:
        options.error(str(error))


_SAY = {
    "out": "Name the folder of the run, such as out/birds.",
    "source": "Name a pretrained checkpoint, such as resnet50.safetensors.",
    "data": "Name a folder with one folder of images for each class, or tfds:NAME.",
}


def _settings(chosen: argparse.Namespace) -> Settings:
    given = {name: getattr(chosen, name) for name in Settings._fields if hasattr(chosen, name)}
    settings = Settings(**given)._replace(layers=tuple(chosen.layers))
    _check_fit(settings)
    if settings.regularizer == FINETUNE:
        return settings
    weight = PUBLISHED_WEIGHTS[settings.regularizer] if chosen.weight is None else chosen.weight
    rule = (chosen.rule or "truncate") if settings.method.endswith(DTNH) else "plain"
    return settings._replace(weight=weight, rule=rule)


def _address(given: list[str] | None) -> dict[str, Any] | None:
    """Return the arguments of `jax.distributed.initialize`, None for a single process."""
    if not given:
        return None if given is None else {}
    if len(given) != 3 or not (given[1].isdigit() and given[2].isdigit()):
        raise ValueError(
            f"`--distributed` should have HOST:PORT, the number of processes and the index of this "
            f"one, or nothing, got {' '.join(given)}. Run it as in `--distributed host0:1234 4 0`."
        )
    names = ("coordinator_address", "num_processes", "process_id")
    return dict(zip(names, (given[0], int(given[1]), int(given[2])), strict=True))


def _check_fit(settings: Settings) -> None:
    method = settings.method
    if settings.weight is not None and method == FINETUNE:
        raise ValueError(
            "`--weight` should come with a regularizer, got --method finetune. Leave it out, or "
            "set `--weight-decay`."
        )
    for name in ("rule", "reference_decay"):
        if getattr(settings, name) is not None and not method.endswith(DTNH):
            raise ValueError(
                f"`--{name.replace('_', '-')}` should come with a method that ends in {DTNH}, got "
                f"--method {method}. Leave it out, or add {DTNH}."
            )
    if settings.layers and settings.regularizer not in ("feature_distance", "delta"):
        raise ValueError(
            f"`--layers` should come with feature_distance or delta, got --method {method}. "
            "Leave it out."
        )


def _parsed(given: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(given)
    except ValueError:
        return math.nan


def _number(given: str) -> float:
    return _checked(given, "a number >= 0", float, lambda x: 0 <= x < math.inf)


def _positive(given: str) -> float:
    return _checked(given, "a number > 0", float, lambda x: 0 < x < math.inf)


def _share(given: str) -> float:
    return _checked(given, "a number above 0 and below 1", float, lambda x: 0 < x < 1)


def _whole(given: str) -> int:
    return _checked(given, "a whole number from 0 to 4294967295", int, lambda n: 0 <= n < 2**32)


def _count(given: str) -> int:
    return _checked(given, "a whole number from 1 to 4294967295", int, lambda n: 1 <= n < 2**32)


def _checked(
    given: str, what: str, kind: Callable[[str], Any], holds: Callable[[Any], bool]
) -> Any:
    value = _parsed(given, kind) if re.fullmatch(r"[0-9.eE+-]+", given) else math.nan
    if not holds(value):
        raise argparse.ArgumentTypeError(f"it should be {what}, got {given!r}")
    return value
