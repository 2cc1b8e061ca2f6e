"""Mutants of the fine-tuning command: its options, its data, its methods."""

from tests.mutants import Mutant

FOLDER = "optax_dtnh/finetune"
COMMAND, SETTINGS = "tests/finetune/test_command.py", "tests/finetune/test_settings.py"
DATASET = "tests/finetune/test_dataset.py"
FILES = "tests/finetune/test_image_files.py"
PREPROCESSING = "tests/finetune/test_preprocessing.py"
BATCHES, TFDS = "tests/finetune/test_batches.py", "tests/finetune/test_tfds.py"
LAYOUTS, TABLE = "tests/finetune/test_layouts.py", "tests/finetune/test_table.py"
METHODS = "tests/finetune/test_methods.py"

MUTANTS = [
    # the arguments
    Mutant(
        f"{FOLDER}/settings.py",
        'rule=rule if settings.method.endswith(DTNH) else "plain"',
        "rule=rule",
        SETTINGS,
    ),
    Mutant(f"{FOLDER}/settings.py", "lambda x: 0 < x < 1)", "lambda x: 0 < x <= 1)", SETTINGS),
    Mutant(
        f"{FOLDER}/settings.py", '"sgd", choices=OPTIMIZERS', '"adam", choices=OPTIMIZERS', SETTINGS
    ),
    Mutant(
        f"{FOLDER}/settings.py",
        "500, free=True, type=count",
        "500, free=False, type=count",
        SETTINGS,
    ),
    Mutant(f"{FOLDER}/__main__.py", 'error.name.startswith("optax_dtnh")', "False", COMMAND),
    Mutant(
        f"{FOLDER}/__main__.py",
        "from optax_dtnh.finetune.errors import UsageError, address_error\n",
        "from optax_dtnh.finetune import train  # noqa: F401\n"
        "from optax_dtnh.finetune.errors import UsageError, address_error\n",
        COMMAND,
    ),
    Mutant(f"{FOLDER}/errors.py", "raise UsageError(text)", "raise OSError(text)", COMMAND),
    # the data
    Mutant(f"{FOLDER}/dataset.py", "[1] if same else", "[1] if False else", COMMAND),
    Mutant(f"{FOLDER}/dataset.py", "default_rng(request.seed)", "default_rng(0)", DATASET),
    Mutant(f"{FOLDER}/dataset.py", "image.label, image.digest)", "image.label, 0)", DATASET),
    Mutant(f"{FOLDER}/dataset.py", " if image.position not in drawn", "", DATASET),
    Mutant(f"{FOLDER}/checking.py", "digest + names[image.label]", "digest", DATASET),
    Mutant(f"{FOLDER}/class_names.py", "position[names[label]]", "label", DATASET),
    Mutant(f"{FOLDER}/dataset.py", "train_per_class + 1,", "train_per_class,", DATASET),
    Mutant(f"{FOLDER}/folder.py", "with usage_errors(OSError):", "if True:", BATCHES),
    Mutant(f"{FOLDER}/listing.py", 'name.startswith(".")', "False", DATASET),
    Mutant(f"{FOLDER}/listing.py", "if real in outside:", "if False:", DATASET),
    Mutant(f"{FOLDER}/folder.py", "splits.get(TEST, splits", "(splits", LAYOUTS),
    Mutant(f"{FOLDER}/table.py", 'encoding="utf-8-sig"', 'encoding="utf-8"', TABLE),
    Mutant(f"{FOLDER}/table.py", '== ".." or not path', '== "..." or not path', TABLE),
    Mutant(
        f"{FOLDER}/tfds.py", 'source[index]["label"] >= 0', 'source[index]["label"] >= -1', TFDS
    ),
    Mutant(f"{FOLDER}/images.py", "get(ORIENTATION, 1)", "get(0, 1)", FILES),
    Mutant(f"{FOLDER}/images.py", "values.view(np.uint32)", "values", FILES),
    Mutant(f"{FOLDER}/images.py", "255 - gray if", "gray if", FILES),
    Mutant(f"{FOLDER}/images.py", "(8, 12, 16, 32)", "(8, 16, 32)", FILES),
    Mutant(f"{FOLDER}/images.py", "if wide_color and", "if False and", FILES),
    Mutant(f"{FOLDER}/metadata.py", " or _is_sound_exif(chunk)", "", FILES),
    Mutant(f"{FOLDER}/metadata.py", " and len(content) >= length", "", FILES),
    Mutant(f"{FOLDER}/images.py", "resize - size + 1", "resize - size", PREPROCESSING),
    Mutant(f"{FOLDER}/preprocessing.py", 'beside.pop("resize", None)', "pass", PREPROCESSING),
    # the batches
    Mutant(
        f"{FOLDER}/batches.py",
        "[process::processes][start:]",
        "[start:][process::processes]",
        BATCHES,
    ),
    Mutant(f"{FOLDER}/batches.py", "[process::processes][start:]", "[process::processes]", BATCHES),
    Mutant(f"{FOLDER}/batches.py", ".shuffle().repeat()", ".repeat()", BATCHES),
    Mutant(f"{FOLDER}/batches.py", '"valid": np.True_', '"valid": np.False_', BATCHES),
    # the methods
    Mutant(f"{FOLDER}/methods.py", '"mask": backbone_mask,', '"mask": None,', METHODS),
    Mutant(f"{FOLDER}/methods.py", "mask=head_mask)", "mask=None)", METHODS),
    Mutant(
        f"{FOLDER}/methods.py",
        "student.maps, teacher.maps, weights\n",
        "student.maps, teacher.maps, weights, reduction=jnp.sum\n",
        METHODS,
    ),
    Mutant(f"{FOLDER}/methods.py", "round(DROP_AT * steps)", "round(0.5 * steps)", METHODS),
    Mutant(f"{FOLDER}/methods.py", "return names[1:]", "return names", METHODS),
    Mutant(f"{FOLDER}/forms.py", "jax.tree.map(jnp.copy, params)", "params", METHODS),
    Mutant(
        f"{FOLDER}/forms.py",
        "apart = transform_pair(optax.chain(decay, direction), direction)",
        "apart = transform_pair(optax.chain(decay, direction))",
        METHODS,
    ),
    Mutant(
        f"{FOLDER}/delta.py",
        "jnp.stack(losses))",
        "jnp.stack(losses[:1]))",
        "tests/finetune/test_delta.py",
    ),
]
