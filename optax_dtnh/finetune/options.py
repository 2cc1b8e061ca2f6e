"""The arguments of the command, checked before anything heavy is imported."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from optax_dtnh.finetune.numbers import count, number, positive, share, whole

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
OPTIMIZERS = ("sgd", "adam")
FORMS = {"before": OPTIMIZERS, "momentum": ("sgd",), "decoupled": OPTIMIZERS, "metric": ("adam",)}
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
      form: Where the regularizer and the optimizer meet, one of `FORMS`; None without the former.
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
    form: str | None
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


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line that starts with `error:`."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message."""
        self.exit(2, f"error: {' '.join(message.split())}\n")


def parser(description: str | None) -> Parser:
    """Return the parser of the command."""
    options = Parser(
        prog="python -m optax_dtnh.finetune",
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
    forms = "of docs/forms.md (default: before the optimizer; metric is Adam's, momentum SGD's)"
    add("--form", choices=FORMS, help=forms)
    shown = ", ".join(f"{name} {weight:g}" for name, weight in PUBLISHED_WEIGHTS.items())
    add("--weight", type=number, help=f"of the regularizer (default: {shown})")
    add("--rule", choices=RULES, help="for +dtnh (default: truncate)")
    add("--reference-decay", type=share, metavar="D", help="for +dtnh: protect averaged gradients")
    layers = "feature maps that are compared (default: the stages, or four of a ViT's blocks)"
    add("--layers", nargs="+", default=[], metavar="NAME", help=layers)
    add("--temperature", type=positive, default=2.0, help="of distillation (default: 2)")
    add("--head-decay", type=number, default=0.01, help="of the new head (default: 0.01)")
    add("--weight-decay", type=number, default=1e-4, help="for finetune alone (default: 0.0001)")


def _add_training(add: Callable[..., Any]) -> None:
    add("--optimizer", choices=OPTIMIZERS, default="sgd", help="default: sgd, momentum 0.9")
    add("--learning-rate", type=positive, default=0.01, metavar="LR", help="default: 0.01")
    schedules = "step (the default): a tenth from two thirds on; cosine: to 0; constant"
    add("--schedule", choices=("step", "cosine", "constant"), default="step", help=schedules)
    add("--batch-size", type=count, default=64, metavar="N", help="over all devices (default: 64)")
    add("--steps", type=count, default=9000, metavar="N", help="default: 9000")
    add("--seed", type=whole, default=0, metavar="N", help="default: 0")


def _add_images(add: Callable[..., Any]) -> None:
    add("--train-per-class", type=count, metavar="N", help="training images of each class")
    add("--image-size", type=count, metavar="N", help="of a crop (default: the source's or 224)")
    add("--resize", type=count, metavar="N", help="before it (default: in proportion, 256)")
    add("--skip-broken", action="store_true", help="leave unreadable images out, and count them")
    add("--workers", type=whole, default=0, metavar="N", help="decoding processes (default: 0)")


def _add_machine(add: Callable[..., Any]) -> None:
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    add("--devices", type=count, metavar="N", help="use the first N devices (default: all)")
    add("--fsdp", action="store_true", help="divide parameters among the devices")
    several = "one of several processes: as jax finds out, or HOST:PORT, how many, and which"
    add("--distributed", nargs="*", metavar="WHERE", help=several)
    add("--log-every", type=count, default=50, metavar="N", help="steps (default: 50)")
    add("--save-every", type=count, default=500, metavar="N", help="steps (default: 500)")


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
    return settings._replace(form=chosen.form or "before", weight=weight, rule=rule)


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
    _check_form(settings)
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


def _check_form(settings: Settings) -> None:
    form, optimizer = settings.form, settings.optimizer
    if form is None:
        return
    if settings.method == FINETUNE:
        raise ValueError(
            f"`--form` should come with a regularizer, got --method {FINETUNE}. Leave it out."
        )
    if optimizer not in FORMS[form]:
        raise ValueError(
            f"`--form {form}` should come with --optimizer {FORMS[form][0]}, got {optimizer}. Set "
            "it, or choose --form decoupled."
        )
    if form == "metric" and settings.reference_decay is not None:
        raise ValueError(
            "`--reference-decay` should come with another form than metric, which protects this "
            "batch's gradient alone. Leave it out."
        )
