"""What a run depends on: every setting stands once, with its default and its help."""

from dataclasses import asdict, dataclass
from functools import partial

from optax_dtnh.finetune.options import (
    GROUPS,
    count,
    finite,
    fraction,
    number,
    option,
    positive,
    share,
    whole,
)

# Of the functions in `optax_dtnh.regularizers`: feature_distance and delta are means, so that their
# weights depend on no batch, resolution or width. The others are published weights.
# docs/regularizers.md, "Which weight", converts what is published for sums.
DEFAULT_WEIGHTS = {"l2_sp": 0.01, "feature_distance": 1.0, "distillation": 2.0}
DEFAULT_WEIGHTS |= {"delta": 1.0, "bss": 0.001}
DTNH, FINETUNE = "+dtnh", "finetune"
DECAY = 1e-4  # of the method finetune, as in optax.adamw
METHODS = (FINETUNE, *(name + end for name in DEFAULT_WEIGHTS for end in ("", DTNH)))
OF_MAPS = ("feature_distance", "delta")  # compare feature maps
OPTIMIZERS, SCHEDULES = ("sgd", "adam", "adamw"), ("step", "cosine", "constant")
FORMS = {"before": OPTIMIZERS, "momentum": ("sgd",), "decoupled": OPTIMIZERS}
FORMS |= {"metric": ("adam", "adamw")}
RULES = ("truncate", "orthogonal", "drop", "cosine")
GRANULARITIES = ("tree", "leaf", "channel", "element")
DTYPES, DUPLICATES = ("float32", "bfloat16"), ("refuse", "warn", "drop")
STATISTICS = BATCH, FROZEN = "batch", "frozen"
# The default length: the steps of the published code would be thousands of epochs of few images.
PUBLISHED, FEWEST, EPOCHS = 9000, 500, 100
VAL_EVERY = 50
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")

_file, _method, _training, _image, _machine = (partial(option, group) for group in GROUPS)
_WEIGHTS = ", ".join(f"{weight:g} for {name}" for name, weight in DEFAULT_WEIGHTS.items())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a run depends on, as `settings.json` keeps it; `train --help` describes it.

    `steps` is None and `epochs` may be given until the data are known, see `arguments.resolved`.
    `form`, `weight` and `rule` are None without a regularizer; `rule` is "plain" without DTNH.
    """

    source: str = _file(
        "ResNet, ViT or EfficientNet-Lite0: .safetensors or .pth file, or hf:OWNER/NAME.",
        metavar="FILE",
        required=True,
    )
    download: bool = _file("Fetch an hf: checkpoint that is not cached.", False)
    heads: int | None = _file("Attention heads of a ViT, if no file tells them.", type=count)
    ignore: tuple[str, ...] = _file("Tensors of the checkpoint that may stay unused.", ())
    data: str = _file(
        "Folder with a folder of images for each class, or with train and test that have such "
        "folders; or tfds:NAME.",
        metavar="DIR",
        required=True,
    )
    data_dir: str | None = _file("Folder of TFDS data sets (default: TFDS's).", metavar="DIR")
    labels: str | None = _file(
        "Table of path and label of the images: CSV, TSV, JSON lines or Parquet.", metavar="FILE"
    )
    classes: tuple[str, ...] = _file("Use these class folders or labels alone (default: all).", ())
    duplicates: str = _file(
        "What to do about equal images in two splits or classes.", "warn", choices=DUPLICATES
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
    weight: float | None = _method(f"Weight of the regularizer (default: {_WEIGHTS}).", type=number)
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
    head_decay: float = _method("Weight decay of the head with a regularizer.", 0.01, type=number)
    weight_decay: float | None = _method(
        f"Weight decay of all parameters with {FINETUNE} (default: {DECAY}), or of the backbone "
        "with a regularizer (default: 0).",
        type=number,
    )

    optimizer: str = _training(
        "SGD has momentum 0.9; adamw decouples the weight decay.", "sgd", choices=OPTIMIZERS
    )
    learning_rate: float = _training("Learning rate at the start.", 0.01, type=positive)
    schedule: str = _training(
        "step divides the learning rate by 10 after two thirds of steps; cosine decays it to 0.",
        "step",
        choices=SCHEDULES,
    )
    batch_size: int = _training("Images in a step, over all devices.", 64, type=count)
    steps: int = _training(
        f"Number of steps (default: {EPOCHS} epochs, but {FEWEST} to {PUBLISHED} steps, where "
        f"{PUBLISHED} are those of DELTA's published code).",
        type=count,
    )
    epochs: int | None = _training("Number of epochs, instead of --steps.", type=count)
    seed: int = _training("Seed of all that is random.", 0, type=whole)
    val_every: int | None = _training(
        f"Steps between two validations (default: an epoch, but at least {VAL_EVERY}).", type=count
    )
    patience: int | None = _training(
        "Stop after N validations without a better one (default: never).", type=count
    )
    warmup: int = _training("Steps in which the learning rate rises from 0.", 0, type=whole)
    clip_norm: float | None = _training(
        "Largest norm of the gradient that the optimizer gets (default: any).", type=positive
    )
    micro_batches: int = _training(
        "Parts of a batch that go through the network one by one, to save memory.", 1, type=count
    )
    class_weights: str | None = _training(
        "balanced weights all classes alike (default: all images alike).", choices=("balanced",)
    )
    label_smoothing: float = _training("Share of a label spread over all classes.", 0.0, type=share)
    freeze: tuple[str, ...] = _training(
        "Parts whose parameters stay as they are: stem, stage1, ...; of a ViT stem, block1, ...", ()
    )
    batch_norm: str = _training(
        f"Statistics of a {BATCH}, or {FROZEN} ones of the checkpoint.", BATCH, choices=STATISTICS
    )

    train_per_class: int | None = _image(
        "Training images of a class (default: all); required without test images.", type=count
    )
    val_per_class: int | None = _image(
        "Training images of a class to validate on (default: the validation split).", type=count
    )
    val_fraction: float | None = _image("The same, as a share of these images.", type=fraction)
    image_size: int | None = _image(
        "Height and width that the network sees (default: the checkpoint's, or 224).", type=count
    )
    resize: int | None = _image("Side before cropping (default: 8/7 of --image-size).", type=count)
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
    workers: int = _image("Processes that decode images; 0 uses threads.", 0, type=whole)
    augment: str = _image(
        "standard crops and mirrors training images at random; none resizes them like test images.",
        "standard",
        choices=("standard", "none"),
    )

    dtype: str = _machine(
        "Precision of both passes; parameters are float32.", "float32", choices=DTYPES
    )
    devices: int | None = _machine("Use the first N devices (default: all).", type=count)
    fsdp: bool = _machine("Divide parameters and optimizer state among the devices.", False)
    log_every: int = _machine("Steps between two lines of the log.", 50, type=count)
    save_every: int = _machine("Steps between checkpoints, besides one a minute.", 500, type=count)
    log: str | None = _machine("Also write event files for TensorBoard.", choices=("tensorboard",))

    @property
    def regularizer(self) -> str:
        """The method without DTNH."""
        return self.method.removesuffix(DTNH)


DEFAULTS = asdict(Settings())
# A run may be resumed with other values of these, because no weight depends on them.
FREE = ("download", "workers", "log_every", "save_every", "log")
# Settings that `load` takes, besides the source.
OF_SOURCE = "dtype ignore download heads image_size".split()
