"""Mutants of the fine-tuning command: its options, its data, its methods."""

from tests.mutants import listed

COMMAND, SETTINGS = "tests/finetune/test_command.py", "tests/finetune/test_settings.py"
DATASET = "tests/finetune/test_dataset.py"
FILES = "tests/finetune/test_image_files.py"
PREPROCESSING = "tests/finetune/test_preprocessing.py"
BATCHES, TFDS = "tests/finetune/test_batches.py", "tests/finetune/test_tfds.py"
LAYOUTS, TABLE = "tests/finetune/test_layouts.py", "tests/finetune/test_table.py"
METHODS = "tests/finetune/test_methods.py"

MUTANTS = listed(
    "optax_dtnh/finetune",
    {
        ("settings.py", SETTINGS): [
            ('rule=rule if settings.method.endswith(DTNH) else "plain"', "rule=rule"),
            ("lambda x: 0 < x < 1)", "lambda x: 0 < x <= 1)"),
            ('"sgd", choices=OPTIMIZERS', '"adam", choices=OPTIMIZERS'),
            ("500, free=True, type=count", "500, free=False, type=count"),
        ],
        ("__main__.py", COMMAND): [
            ('error.name.startswith("optax_dtnh")', "False"),
            (
                "from optax_dtnh.finetune.errors import",
                "from optax_dtnh.finetune import train\nfrom optax_dtnh.finetune.errors import",
            ),
        ],
        ("errors.py", COMMAND): [("raise UsageError(text)", "raise OSError(text)")],
        ("dataset.py", DATASET): [
            ("[1] if same else", "[1] if False else"),
            ("default_rng(request.seed)", "default_rng(0)"),
            ("image.label, image.digest)", "image.label, 0)"),
            (" if image.position not in drawn", ""),
            ("train_per_class + 1,", "train_per_class,"),
        ],
        ("checking.py", DATASET): [("digest + names[image.label]", "digest")],
        ("class_names.py", DATASET): [("position[names[label]]", "label")],
        ("folder.py", BATCHES): [("with usage_errors(OSError):", "if True:")],
        ("listing.py", DATASET): [
            ('name.startswith(".")', "False"),
            ("if real in outside:", "if False:"),
        ],
        ("folder.py", LAYOUTS): [("splits.get(TEST, splits", "(splits")],
        ("table.py", TABLE): [
            ('encoding="utf-8-sig"', 'encoding="utf-8"'),
            ('== ".." or not path', '== "..." or not path'),
        ],
        ("tfds.py", TFDS): [('source[index]["label"] >= 0', 'source[index]["label"] >= -1')],
        ("images.py", FILES): [
            ("get(ORIENTATION, 1)", "get(0, 1)"),
            ("values.view(np.uint32)", "values"),
            ("255 - gray if", "gray if"),
            ("(8, 12, 16, 32)", "(8, 16, 32)"),
            ("if wide_color and", "if False and"),
        ],
        ("metadata.py", FILES): [
            (" or _is_sound_exif(chunk)", ""),
            (" and len(content) >= length", ""),
        ],
        ("images.py", PREPROCESSING): [("resize - size + 1", "resize - size")],
        ("preprocessing.py", PREPROCESSING): [('beside.pop("resize", None)', "pass")],
        ("batches.py", BATCHES): [
            ("[process::processes][start:]", "[start:][process::processes]"),
            ("[process::processes][start:]", "[process::processes]"),
            (".shuffle().repeat()", ".repeat()"),
            ('"valid": np.True_', '"valid": np.False_'),
        ],
        ("methods.py", METHODS): [
            ('"mask": backbone_mask,', '"mask": None,'),
            ("mask=head_mask)", "mask=None)"),
            ("teacher.maps, weights\n", "teacher.maps, weights, reduction=jnp.sum\n"),
            ("round(DROP_AT * steps)", "round(0.5 * steps)"),
            ("return names[1:]", "return names"),
        ],
        ("forms.py", METHODS): [
            ("jax.tree.map(jnp.copy, params)", "params"),
            ("(optax.chain(decay, direction), direction)", "(optax.chain(decay, direction))"),
        ],
        ("delta.py", METHODS): [("jnp.stack(losses))", "jnp.stack(losses[:1]))")],
    },
)
