"""Mutants of the fine-tuning command: its training, its checkpoints, its folder, its end."""

from tests.mutants import Mutant

FOLDER = "optax_dtnh/finetune"
CHECKPOINTS = "tests/finetune/test_checkpoints.py"
RUN_FOLDER = "tests/finetune/test_run_folder.py"
INTERRUPTS = "tests/finetune/test_interrupts.py"
PROCESSES = "tests/finetune/test_processes.py"
COMMAND = "tests/finetune/test_command.py"

MUTANTS = [
    # checkpoints
    Mutant(f"{FOLDER}/checkpoints.py", "KEPT = 2", "KEPT = 3", CHECKPOINTS),
    Mutant(
        f"{FOLDER}/checkpoints.py",
        "sorted(manager.all_steps(), reverse=True)",
        "sorted(manager.all_steps())",
        CHECKPOINTS,
    ),
    Mutant(
        f"{FOLDER}/checkpoints.py",
        'changed = _differences(content["files"], found)',
        "changed = []",
        CHECKPOINTS,
    ),
    Mutant(
        f"{FOLDER}/checkpoints.py",
        "for step in problems:\n        manager.delete(step)",
        "for step in ():\n        manager.delete(step)",
        CHECKPOINTS,
    ),
    Mutant(
        f"{FOLDER}/checkpoints.py",
        "list(saved.items()) == list(asked.items())",
        "saved == asked",
        CHECKPOINTS,
    ),
    Mutant(f"{FOLDER}/checkpoints.py", "_reserve(path.parent, leaves)", "pass", CHECKPOINTS),
    Mutant(
        f"{FOLDER}/checkpoints.py",
        "cleanup_tmp_directories=True",
        "cleanup_tmp_directories=False",
        CHECKPOINTS,
    ),
    # the folder of a run
    Mutant(f"{FOLDER}/run_folder.py", " - set(FREE)", "", RUN_FOLDER),
    Mutant(
        f"{FOLDER}/run_folder.py",
        "    if not check(out, settings, facts):\n        record",
        "    if True:\n        record",
        RUN_FOLDER,
    ),
    Mutant(f"{FOLDER}/run_folder.py", " | fcntl.LOCK_NB", " | fcntl.LOCK_SH", RUN_FOLDER),
    Mutant(f"{FOLDER}/log.py", 'entry["step"] <= step', 'entry["step"] < step', RUN_FOLDER),
    Mutant("optax_dtnh/models/_files.py", "write(partial)", "write(path)", RUN_FOLDER),
    Mutant(f"{FOLDER}/log.py", "in lines[:-1]]", "in lines]", RUN_FOLDER),
    Mutant(f"{FOLDER}/log.py", "if log[-1][name] is not None", "", RUN_FOLDER),
    # the training
    Mutant(f"{FOLDER}/train.py", "start=int(state.step)", "start=0", COMMAND),
    Mutant(f"{FOLDER}/train.py", "or last or stopping:", "or last:", INTERRUPTS),
    Mutant(
        f"{FOLDER}/train.py",
        "log.LOG, int(state.step) if state else 0)",
        "log.LOG, 0)",
        COMMAND,
    ),
    Mutant(
        f"{FOLDER}/train.py",
        "jax.tree.map(jnp.copy, zeros))",
        "state.sums)",
        "tests/finetune/test_command.py",
    ),
    Mutant(
        f"{FOLDER}/step.py", 'jnp.any(batch["stop"])', 'jnp.all(batch["stop"]) & False', INTERRUPTS
    ),
    # signals and processes
    Mutant(f"{FOLDER}/interrupts.py", "os._exit(128 + number)", "pass", COMMAND),
    Mutant(f"{FOLDER}/interrupts.py", "is not signal.SIG_IGN", "is not None", INTERRUPTS),
    Mutant(
        f"{FOLDER}/interrupts.py",
        "signal.signal(number, signal.SIG_DFL)\n        os.write",
        "pass\n        os.write",
        INTERRUPTS,
    ),
    Mutant(
        f"{FOLDER}/interrupts.py",
        "signal.signal(number, signal.SIG_DFL if old is None else old)",
        "pass",
        INTERRUPTS,
    ),
    Mutant(f"{FOLDER}/processes.py", "return flag", "return False", PROCESSES),
    Mutant(f"{FOLDER}/evaluate.py", ' & batch["valid"]', "", COMMAND),
]
