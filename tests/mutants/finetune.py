"""Mutants of the fine-tuning command: options, data, methods, training, checkpoints."""

from tests.mutants import listed

MUTANTS = listed(
    "optax_dtnh/finetune",
    "tests/finetune",
    {
        ("settings.py", "settings"): [('"sgd", choices=OPTIMIZERS', '"adam", choices=OPTIMIZERS')],
        ("arguments.py", "settings"): [
            ('rule=rule if settings.method.endswith(DTNH) else "plain"', "rule=rule"),
            ("math.ceil(", "math.floor("),
        ],
        ("__main__.py", "command"): [('error.name.startswith("optax_dtnh")', "False")],
        ("dataset.py", "dataset"): [("[1] if same else", "[1] if False else")],
        ("dataset.py", "validation"): [
            ("held_out or sorted(checked.val, key=_by_content)", "held_out or checked.val")
        ],
        ("class_names.py", "dataset"): [("position[names[label]]", "label")],
        ("folder.py", "batches"): [("with usage_errors(OSError):", "if True:")],
        ("listing.py", "dataset"): [("if real in outside:", "if False:")],
        ("folder.py", "layouts"): [("(test, val) if test else (val, None)", "(test, val)")],
        ("tfds.py", "tfds"): [('source[index]["label"] >= 0', 'source[index]["label"] >= -1')],
        ("images.py", "image_files"): [
            ("255 - gray if", "gray if"),
            (" or _is_sound_exif(chunk)", ""),
        ],
        ("images.py", "preprocessing"): [("resize - size + 1", "resize - size")],
        ("preprocessing.py", "preprocessing"): [('beside.pop("resize", None)', "pass")],
        ("batches.py", "batches"): [
            ("[process::processes][start:]", "[start:][process::processes]")
        ],
        ("methods.py", "methods"): [('"mask": backbone_mask,', '"mask": None,')],
        ("forms.py", "methods"): [("jax.tree.map(jnp.copy, params)", "params")],
        ("methods.py", "recipe"): [
            ("optax.chain(clip, decay), optax", "optax.chain(decay, clip), optax"),
            ('options["reference"] = optax.tree.get(opt_state, "ema")', "pass"),
        ],
        ("student.py", "student"): [("        model.eval()", "        pass")],
        ("step.py", "student"): [("False if settings.batch_norm == FROZEN else ", "")],
        ("delta.py", "methods"): [("jnp.stack(losses))", "jnp.stack(losses[:1]))")],
        ("checkpoints.py", "checkpoints"): [
            ("sorted(manager.all_steps(), reverse=True)", "sorted(manager.all_steps())"),
            ('changed = _differences(content["files"], found)', "changed = []"),
        ],
        ("run_folder.py", "run_folder"): [
            ("if check(out, settings, facts) != 0:", "if check(out, settings, facts) or True:"),
            (" | fcntl.LOCK_NB", " | fcntl.LOCK_SH"),
        ],
        ("log.py", "run_folder"): [('entry["step"] <= step', 'entry["step"] < step')],
        ("../models/_saving.py", "run_folder"): [("write(partial)", "write(path)")],
        ("loop.py", "interrupts"): [("or asked != step.GO_ON", "")],
        ("loop.py", "validation"): [
            ("if best:  # the checkpoint was saved, but perhaps not the model", "if False:"),
            ('jnp.where(batch["valid"], x, 0)', "x"),
            ('-x["val_loss"]', "0"),
        ],
        ("train.py", "interrupts"): [('"start": int(state.step)', '"start": 0')],
        ("step.py", "interrupts"): [('jnp.max(batch["ask"])', 'jnp.min(batch["ask"]) * 0')],
        ("interrupts.py", "interrupts"): [
            ("signal.signal(number, signal.SIG_DFL if old is None else old)", "pass")
        ],
        ("processes.py", "processes"): [("np.any(", "np.all(0 * ")],
    },
)
