"""Mutants of the fine-tuning command: its options, its data, its methods."""

from tests.mutants import Mutant

FOLDER = "optax_dtnh/finetune"
COMMAND, SETTINGS = "tests/finetune/test_command.py", "tests/finetune/test_settings.py"
DATASET, IMAGES = "tests/finetune/test_dataset.py", "tests/finetune/test_images.py"
BATCHES, TFDS = "tests/finetune/test_batches.py", "tests/finetune/test_tfds.py"
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
        "from optax_dtnh.finetune.errors import UsageError\n",
        "from optax_dtnh.finetune import train  # noqa: F401\n"
        "from optax_dtnh.finetune.errors import UsageError\n",
        COMMAND,
    ),
    Mutant(f"{FOLDER}/errors.py", "raise UsageError(ARGUMENT", "raise OSError(ARGUMENT", COMMAND),
    # the data
    Mutant(f"{FOLDER}/dataset.py", "elif checksum == trained_on:", "elif False:", COMMAND),
    Mutant(f"{FOLDER}/dataset.py", "default_rng([seed, label])", "default_rng([label])", DATASET),
    Mutant(
        f"{FOLDER}/dataset.py",
        "np.setdiff1d(indices, train).tolist()",
        "indices.tolist()",
        DATASET,
    ),
    Mutant(f"{FOLDER}/dataset.py", "digest + label.to_bytes(4, signed=True)", "digest", DATASET),
    Mutant(f"{FOLDER}/dataset.py", "train_per_class + 1,", "train_per_class,", DATASET),
    Mutant(f"{FOLDER}/folder.py", "with usage_errors(OSError):", "if True:", BATCHES),
    Mutant(f"{FOLDER}/folder.py", 'not entry.name.startswith(".")', "True", DATASET),
    Mutant(f"{FOLDER}/folder.py", "if error.errno == errno.ELOOP:", "if False:", DATASET),
    Mutant(f"{FOLDER}/tfds.py", 'source[0]["label"] >= 0', 'source[0]["label"] >= -1', TFDS),
    Mutant(f"{FOLDER}/images.py", "ImageOps.exif_transpose(opened)", "opened", IMAGES),
    Mutant(f"{FOLDER}/images.py", "resize - size + 1", "resize - size", IMAGES),
    Mutant(f"{FOLDER}/images.py", 'found.pop("resize", None)', "pass", IMAGES),
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
    Mutant(f"{FOLDER}/methods.py", "0.5 * jnp.sum(jnp.mean", "jnp.sum(jnp.mean", METHODS),
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
