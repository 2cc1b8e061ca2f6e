"""What a run depends on: every setting stands once, with its default and its help."""

from dataclasses import MISSING, dataclass, fields
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
OPTIMIZERS = ("sgd", "adam", "adamw")
FORMS = {"before": OPTIMIZERS, "momentum": ("sgd",), "decoupled": OPTIMIZERS}
FORMS |= {"metric": ("adam", "adamw")}
RULES = ("truncate", "orthogonal", "drop", "cosine")
GRANULARITIES = ("tree", "leaf", "channel", "element")
BATCH, FROZEN = "batch", "frozen"
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
        choices=("step", "cosine", "constant"),
    )
    batch_size: int = _training("Images in a step, over all devices.", 64, type=count)
    steps: int = _training(
        f"Number of steps (default: {EPOCHS} epochs, but {FEWEST} to {PUBLISHED} steps; "
        f"{PUBLISHED} are DELTA's published code, the other two limits are ours).",
        type=count,
    )
    epochs: int | None = _training("Number of epochs, instead of --steps.", type=count)
    seed: int = _training(
        "Seed of the new head, and of choice, order and augmentation of images.", 0, type=whole
    )
    val_every: int | None = _training(
        f"Steps between two validations (default: an epoch, but at least {VAL_EVERY}).", type=count
    )
    patience: int | None = _training(
        "Stop after N validations without a better one (default: never).", type=count
    )
    warmup: int = _training(
        "Steps in which the learning rate rises from 0, before the schedule.", 0, type=whole
    )
    clip_norm: float | None = _training(
        "Largest norm of the gradient that the optimizer gets: with --form before that of the sum, "
        "else that of the loss (default: any).",
        type=positive,
    )
    micro_batches: int = _training(
        "Parts of a batch that go through the network one after another, to save memory.",
        1,
        type=count,
    )
    class_weights: str | None = _training(
        "balanced weights the loss of an image by n / (C n_c), for n_c of n training images and C "
        "classes (default: no weights).",
        choices=("balanced",),
    )
    label_smoothing: float = _training(
        "Share of a label that is spread over all classes.", 0.0, type=share
    )
    freeze: tuple[str, ...] = _training(
        "Parts whose parameters stay as they are: stem, stage1, ...; of a ViT stem, block1, ...", ()
    )
    batch_norm: str = _training(
        f"{BATCH} normalizes by the statistics of the batch and updates the running ones; {FROZEN} "
        "uses those of the checkpoint.",
        BATCH,
        choices=(BATCH, FROZEN),
    )

    train_per_class: int | None = _image(
        "Training images of a class (default: all); required without test images.", type=count
    )
    val_per_class: int | None = _image(
        "Training images of a class to validate on instead (default: the validation split, if the "
        "data have one beside a test split).",
        type=count,
    )
    val_fraction: float | None = _image(
        "The same as a share of the training images.", type=fraction
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
    augment: str = _image(
        "standard crops and mirrors training images at random; none resizes them like test images.",
        "standard",
        choices=("standard", "none"),
    )

    dtype: str = _machine(
        "Precision of the forward and backward pass; parameters are float32.",
        "float32",
        choices=("float32", "bfloat16"),
    )
    devices: int | None = _machine("Use the first N devices (default: all).", type=count)
    fsdp: bool = _machine("Divide parameters and optimizer state among the devices.", False)
    log_every: int = _machine("Steps between two lines of the log.", 50, free=True, type=count)
    save_every: int = _machine(
        "Steps between two checkpoints; one is saved every minute as well.",
        500,
        free=True,
        type=count,
    )
    log: str | None = _machine(
        "Also write event files for TensorBoard (needs tensorboardX).",
        free=True,
        choices=("tensorboard",),
    )

    @property
    def regularizer(self) -> str:
        """The method without DTNH."""
        return self.method.removesuffix(DTNH)


DEFAULTS = {f.name: f.default for f in fields(Settings) if f.default is not MISSING}
# A run may be resumed with other values of these.
FREE = tuple(f.name for f in fields(Settings) if f.metadata["free"])
