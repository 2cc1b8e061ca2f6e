"""Mutants of the fine-tuning command: its training, its checkpoints, its folder, its end."""

from tests.mutants import listed

CHECKPOINTS = "tests/finetune/test_checkpoints.py"
RUN_FOLDER = "tests/finetune/test_run_folder.py"
INTERRUPTS = "tests/finetune/test_interrupts.py"
PROCESSES = "tests/finetune/test_processes.py"
COMMAND = "tests/finetune/test_command.py"

MUTANTS = listed(
    "optax_dtnh/finetune",
    {
        ("checkpoints.py", CHECKPOINTS): [
            ("KEPT = 2", "KEPT = 3"),
            ("sorted(manager.all_steps(), reverse=True)", "sorted(manager.all_steps())"),
            ('changed = _differences(content["files"], found)', "changed = []"),
            (
                "for step in problems:\n        manager.delete",
                "for step in ():\n        manager.delete",
            ),
            ("list(saved.items()) == list(asked.items())", "saved == asked"),
            ("_reserve(path.parent, leaves)", "pass"),
            ("cleanup_tmp_directories=True", "cleanup_tmp_directories=False"),
        ],
        ("run_folder.py", RUN_FOLDER): [
            (" - set(FREE)", ""),
            ("if not check(out, settings, facts):\n        record", "if True:\n        record"),
            (" | fcntl.LOCK_NB", " | fcntl.LOCK_SH"),
        ],
        ("log.py", RUN_FOLDER): [
            ('entry["step"] <= step', 'entry["step"] < step'),
            ("in lines[:-1]]", "in lines]"),
            ("if log[-1][name] is not None", ""),
        ],
        ("../models/_files.py", RUN_FOLDER): [("write(partial)", "write(path)")],
        ("train.py", COMMAND): [("jax.tree.map(jnp.copy, zeros))", "state.sums)")],
        ("train.py", INTERRUPTS): [
            ("start=int(state.step)", "start=0"),
            ("log.LOG, int(state.step) if state else 0)", "log.LOG, 0)"),
            ("or last or stopping:", "or last:"),
        ],
        ("step.py", INTERRUPTS): [('jnp.any(batch["stop"])', 'jnp.all(batch["stop"]) & False')],
        ("interrupts.py", COMMAND): [("os._exit(128 + number)", "pass")],
        ("interrupts.py", INTERRUPTS): [
            ("is not signal.SIG_IGN", "is not None"),
            ("signal.signal(number, signal.SIG_DFL)\n        os.write", "pass\n        os.write"),
            ("signal.signal(number, signal.SIG_DFL if old is None else old)", "pass"),
        ],
        ("processes.py", PROCESSES): [("return flag", "return False")],
        ("evaluate.py", COMMAND): [(' & batch["valid"]', "")],
    },
)
