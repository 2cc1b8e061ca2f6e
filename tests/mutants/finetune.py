"""Mutants of the fine-tuning command: options, data, methods, training, checkpoints."""

from tests.mutants import listed

MUTANTS = listed(
    "optax_dtnh/finetune",
    "tests/finetune",
    {
        ("settings.py", "settings"): [
            ('"sgd", choices=OPTIMIZERS', '"adam", choices=OPTIMIZERS'),
            ("50, free=True, type=count", "50, free=False, type=count"),
        ],
        ("arguments.py", "settings"): [
            ('rule=rule if settings.method.endswith(DTNH) else "plain"', "rule=rule"),
            ("if parts > 1 and", "if parts < 0 and"),
        ],
        ("options.py", "settings"): [("lambda x: 0 < x < 1)", "lambda x: 0 < x <= 1)")],
        ("length.py", "length"): [("math.ceil(", "math.floor(")],
        ("__main__.py", "command"): [
            ('error.name.startswith("optax_dtnh")', "False"),
            ("import interrupts\n", "import interrupts, train\n"),
        ],
        ("errors.py", "command"): [
            ("str(error))\n        raise UsageError", "str(error))\n        raise OSError")
        ],
        ("dataset.py", "dataset"): [
            ("[1] if same else", "[1] if False else"),
            ("default_rng(request.seed)", "default_rng(0)"),
            ("return image.label, image.digest", "return image.label, b''"),
            (" if image.position not in drawn", ""),
            ("train_per_class + 1,", "train_per_class,"),
        ],
        ("dataset.py", "validation"): [
            ("if image.digest not in contents]", "]"),
            ("default_rng((request.seed, 1))", "default_rng(0)"),
            ("held_out or sorted(checked.val, key=_by_content)", "held_out or checked.val"),
        ],
        ("checking.py", "dataset"): [("digest + names[image.label]", "digest")],
        ("class_names.py", "dataset"): [("position[names[label]]", "label")],
        ("folder.py", "batches"): [("with usage_errors(OSError):", "if True:")],
        ("listing.py", "dataset"): [
            ('name.startswith(".")', "False"),
            ("if real in outside:", "if False:"),
        ],
        ("folder.py", "layouts"): [("(test, val) if test else (val, None)", "(test, val)")],
        ("table.py", "table"): [
            ('encoding="utf-8-sig"', 'encoding="utf-8"'),
            ('== ".." or not path', '== "..." or not path'),
        ],
        ("tfds.py", "tfds"): [('source[index]["label"] >= 0', 'source[index]["label"] >= -1')],
        ("images.py", "image_files"): [
            ("get(ORIENTATION, 1)", "get(0, 1)"),
            ("values.view(np.uint32)", "values"),
            ("255 - gray if", "gray if"),
            ("(8, 12, 16, 32)", "(8, 16, 32)"),
            ("if wide_color and", "if False and"),
        ],
        ("metadata.py", "image_files"): [
            (" or _is_sound_exif(chunk)", ""),
            (" and len(content) >= length", ""),
        ],
        ("images.py", "preprocessing"): [("resize - size + 1", "resize - size")],
        ("preprocessing.py", "preprocessing"): [('beside.pop("resize", None)', "pass")],
        ("batches.py", "batches"): [
            ("[process::processes][start:]", "[start:][process::processes]"),
            ("[process::processes][start:]", "[process::processes]"),
            (".shuffle().repeat()", ".repeat()"),
            ('"valid": np.True_', '"valid": np.False_'),
        ],
        ("methods.py", "methods"): [
            ('"mask": backbone_mask,', '"mask": None,'),
            ("mask=head_mask)", "mask=None)"),
            ("teacher.maps, weights\n", "teacher.maps, weights, reduction=jnp.sum\n"),
            ("round(DROP_AT * settings.steps)", "round(0.5 * settings.steps)"),
            ("return names[1:]", "return names"),
        ],
        ("forms.py", "methods"): [
            ("jax.tree.map(jnp.copy, params)", "params"),
            ("(optax.chain(prepare, direction), direction)", "(optax.chain(prepare, direction))"),
        ],
        ("methods.py", "recipe"): [
            ("optax.chain(clip, decay), optax", "optax.chain(decay, clip), optax"),
            ("coupled, decoupled = clip, decay", "pass"),
            ('options["reference"] = optax.tree.get(opt_state, "ema")', "pass"),
        ],
        ("student.py", "student"): [("        model.eval()", "        pass")],
        ("step.py", "student"): [("False if settings.batch_norm == FROZEN else ", "")],
        ("batches.py", "recipe"): [("np.unique(labels)", "np.unique(labels)[::-1]")],
        ("events.py", "recipe"): [
            ("is not None:\n            writer", "is None:\n            writer")
        ],
        ("delta.py", "methods"): [("jnp.stack(losses))", "jnp.stack(losses[:1]))")],
        ("checkpoints.py", "checkpoints"): [
            ("KEPT = 2", "KEPT = 3"),
            ("sorted(manager.all_steps(), reverse=True)", "sorted(manager.all_steps())"),
            ('changed = _differences(content["files"], found)', "changed = []"),
            ("for step in problems:\n        m", "for step in ():\n        m"),
            ("list(saved.items()) == list(asked.items())", "saved == asked"),
            ("_reserve(path.parent, leaves)", "pass"),
            ("cleanup_tmp_directories=True", "cleanup_tmp_directories=False"),
        ],
        ("run_folder.py", "run_folder"): [
            (" - set(FREE)", ""),
            ("if check(out, settings, facts) != 0:", "if check(out, settings, facts) or True:"),
            (" | fcntl.LOCK_NB", " | fcntl.LOCK_SH"),
        ],
        ("run_folder.py", "length"): [("more < 0 or (", "(")],
        ("log.py", "run_folder"): [
            ('entry["step"] <= step', 'entry["step"] < step'),
            ("in lines[:-1]]", "in lines]"),
            ("if log[-1][name] is not None", ""),
        ],
        ("../models/_saving.py", "run_folder"): [("write(partial)", "write(path)")],
        ("loop.py", "command"): [("jax.tree.map(jnp.copy, self.zeros))", "self.state.sums)")],
        ("loop.py", "interrupts"): [("or asked != step.GO_ON", "")],
        ("loop.py", "validation"): [
            ("if best:  # the checkpoint was saved, but perhaps not the model", "if False:"),
            ("or last or best or over:", "or last:"),
            ("self.first if over else self", "self"),
        ],
        ("validation.py", "validation"): [
            ('jnp.where(batch["valid"], x, 0)', "x"),
            ("model.eval()", "pass"),
            ('-x["val_loss"]', "0"),
            (">= patience", "> patience"),
        ],
        ("train.py", "interrupts"): [
            ("start=int(state.step)", "start=0"),
            ("log.LOG, int(state.step) if state else 0)", "log.LOG, 0)"),
        ],
        ("step.py", "interrupts"): [('jnp.max(batch["ask"])', 'jnp.min(batch["ask"]) * 0')],
        ("interrupts.py", "command"): [("os._exit(128 + number)", "pass")],
        ("interrupts.py", "interrupts"): [
            ("is not signal.SIG_IGN", "is not None"),
            ("signal.signal(number, signal.SIG_DFL)\n        os.write", "pass\n        os.write"),
            ("signal.signal(number, signal.SIG_DFL if old is None else old)", "pass"),
        ],
        ("processes.py", "processes"): [("return flag", "return False")],
        ("evaluate.py", "command"): [
            ('(batch["label"][batch["valid"]], shares[batch["valid"]])', '(batch["label"], shares)')
        ],
    },
)
