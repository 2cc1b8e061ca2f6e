"""Put one fault after the other into a copy of the repository and see that the tests notice.

    python -m tests.mutants [WORD ...]     # those with a word in the path of the file; all without

A fault with which its own tests all pass has survived; the exit code is then 1. CI does not run
this: it takes about 20 seconds a fault.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTEST = ("-m", "pytest", "-x", "-q", "-m", "not long", "-p", "no:cacheprovider", "-n", "0")
NOTHING_RUN = (4, 5)  # exit codes of pytest
TIMEOUT = 1800  # seconds, for a fault with which a test never ends

# Folder: file in it, files of tests without `test_`, old text, new text.
TABLE = {
    "core": [
        ("_rules.py", "rules", "jnp.minimum(dot, 0.0)", "jnp.maximum(dot, 0.0)"),
        ("_rules.py", "rules", "jnp.where(dot < 0, 0.0, 1.0)", "jnp.where(dot > 0, 0.0, 1.0)"),
        ("_rules.py", "rules", "over_norms(jnp.maximum(dot, 0.0)", "over_norms(jnp.abs(dot)"),
        ("_rules.py", "rules properties", "+ 32 * jnp", "+ 0 * jnp"),
        ("_rules.py", "transform", "u + weighted(weight, direction", "u + (direction"),
        ("_combine.py", "rules properties", "nonzero = ref_sq != 0", "nonzero = ref_sq > 1e-12"),
        ("_combine.py", "properties", "conflicts / max(decisions, 1)", "conflicts"),
        ("_combine.py", "optax_contract", ".astype(jnp.result_type(u))", ""),
        ("_combine.py", "transform", "jax.lax.stop_gradient(", "jnp.asarray("),
        ("_combine.py", "granularity", " & (rule is not plain)", ""),
        ("_sums.py", "rules properties", "total + (total - total)", "total"),
        ("_sums.py", "sharding", "jax.lax.psum(s, axes) if axes else s", "s"),
        ("_sums.py", "granularity", "if axis not in along", "if axis in along"),
        ("_select.py", "errors", "check_floating(name, part, LEAVE_OUT)", "pass"),
        ("_labels.py", "properties", "shared[label].append(i)", "shared[0].append(i)"),
        ("_transform.py", "transform", "safe_increment(state.step)", "safe_increment(0)"),
        ("_transform.py", "metric", "u + p * weighted", "u + weighted"),
        ("_transform.py", "metric", "jnp.maximum(jnp.sqrt(nu * c", "(jnp.sqrt(nu * c"),
        ("_anchor.py", "anchor", "r = -pull(", "r = pull("),
        ("_anchor.py", "sharding", "return jnp.where(w == w, x, x)", "return x"),
        ("_pair.py", "properties", "reg.update(r, state.reg,", "loss.update(r, state.reg,"),
        ("_checks.py", "errors", "if jnp.shape(leaf) != jnp.shape(like):", "if False:"),
        ("_probe.py", "check", "anchor=1.0)", "anchor=0.0)"),
        ("_report.py", "report", "if members & indices", ""),
        ("_masks.py", "masks", "fnmatchcase, window", "str.startswith, window"),
        ("_interpolate.py", "interpolate", "t < 0.5, a, x", "t < 2.0, a, x"),
        ("_gradients.py", "gradients", "tangents(t)[i]", "tangents(t)[0]"),
        ("_gradients.py", "micro_batches", "(t / count)", "t"),
    ],
    "regularizers": [
        ("_distances.py", "regularizers", "jax.lax.stop_gradient(f_s)", "f_s"),
        ("_kl.py", "regularizers", "t**2 * jnp.sum", "t * jnp.sum"),
        ("_kl.py", "kl", "x, 0.0) for x in (z, z_s))", "x, x) for x in (z, z_s))"),
        ("_chunks.py", "kl", "x = _kept(x, keep)", "x = jnp.asarray(x)"),
        ("_attention.py", "regularizers", "spread) / 5)", "spread))"),
        ("_fisher.py", "regularizers", "fold_in(key, i)", "fold_in(key, 0)"),
        ("_spectral.py", "regularizers", "v[-k:]", "v[:k]"),
    ],
    "finetune": [
        ("arguments.py", "settings", "math.ceil(", "math.floor("),
        ("__main__.py", "command", 'error.name.startswith("optax_dtnh")', "False"),
        ("dataset.py", "dataset", "[1] if same else", "[1] if False else"),
        ("class_names.py", "dataset", "position[names[label]]", "label"),
        ("listing.py", "dataset", "if real in outside:", "if False:"),
        ("folder.py", "layouts", "(test, val) if test else (val, None)", "(test, val)"),
        ("tfds.py", "tfds", 'source[index]["label"] >= 0', 'source[index]["label"] >= -1'),
        ("images.py", "image_files", "255 - gray if", "gray if"),
        ("images.py", "preprocessing", "resize - size + 1", "resize - size"),
        ("preprocessing.py", "preprocessing", 'beside.pop("resize", None)', "pass"),
        ("batches.py", "batches", "[process::processes][start:]", "[start:][process::processes]"),
        ("methods.py", "methods", '"mask": backbone_mask,', '"mask": None,'),
        ("methods.py", "recipe", "optax.chain(clip, decay), opt", "optax.chain(decay, clip), opt"),
        ("forms.py", "methods", "jax.tree.map(jnp.copy, params)", "params"),
        ("student.py", "student", "        model.eval()", "        pass"),
        ("delta.py", "methods", "jnp.stack(losses))", "jnp.stack(losses[:1]))"),
        ("checkpoints.py", "checkpoints", "all_steps(), reverse=True)", "all_steps())"),
        ("run_folder.py", "run_folder", " | fcntl.LOCK_NB", " | fcntl.LOCK_SH"),
        ("log.py", "run_folder", 'entry["step"] <= step', 'entry["step"] < step'),
        ("loop.py", "interrupts", "or asked != step.GO_ON", ""),
        ("loop.py", "validation", 'jnp.where(batch["valid"], x, 0)', "x"),
        ("loop.py", "validation", '-x["val_loss"]', "0"),
        ("train.py", "interrupts", '"start": int(state.step)', '"start": 0'),
    ],
    "models": [
        ("_layers.py", "model_goldens", '"padding": size // 2', '"padding": "SAME"'),
        ("_layers.py", "models", '"momentum": 0.9', '"momentum": 0.99'),
        ("_resnet.py", "model_goldens", "(a >= b) | (a != a)", "a > b"),
        ("_vit.py", "model_goldens", "approximate=False", "approximate=True"),
        ("_vit.py", "odd_checkpoints", '"cubic", antialias', '"linear", antialias'),
        ("_names.py", "model_goldens", '"query", "key", "value"', '"key", "query", "value"'),
        ("_names.py", "refused_checkpoints", "return matching | ", "return "),
        ("_transfer.py", "model_transfer", "jax.lax.stop_gradient(x)", "x"),
        ("_agreement.py", "odd_checkpoints", " - excused", ""),
        ("_agreement.py", "refused_checkpoints", "(x < 0).any()", "False"),
        ("_saving.py", "pretrained", "        metadata |= {", "        _ = {"),
        ("_checkpoint.py", "checkpoint_files", "digest != str(sha256).lower()", "False"),
        ("_facts.py", "facts", "implied(facts) | facts", "facts"),
        ("_hub.py", "hub", "        _check_network(address)\n", ""),
    ],
}
MUTANTS = [
    (f"optax_dtnh/{folder}/{file}".replace("core/", ""), old, new, tests)
    for folder, rows in TABLE.items()
    for file, names, old, new in rows
    for tests in [[f"tests/{folder}/test_{name}.py" for name in names.split()]]
]


def main(words: list[str]) -> int:
    """Try the faults, and return 1 unless all are noticed."""
    chosen = [m for m in MUTANTS if not words or any(word in m[0] for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        ignored = shutil.ignore_patterns(".[gv]*", ".cache", "site", "dist")
        shutil.copytree(ROOT, copy, ignore=ignored)
        if not passes(copy, {path for *_, tests in chosen for path in tests}):
            raise RuntimeError("the tests fail without a fault")
        survivors = [mutant for mutant in chosen if survives(copy, *mutant)]
    print("\n".join(["Not noticed:", *map(str, survivors)] if survivors else ["All noticed."]))
    return 1 if survivors else 0


def survives(copy: Path, path: str, old: str, new: str, tests: list[str]) -> bool:
    """Return whether the tests pass with a fault, and print it."""
    text = (ROOT / path).read_text()
    (copy / path).write_text(text.replace(old, new))
    survived = passes(copy, tests)
    (copy / path).write_text(text)
    print("survived" if survived else "noticed", path, repr(old), repr(new), flush=True)
    return survived


def passes(copy: Path, tests: set[str] | list[str]) -> bool:
    """Return whether tests pass in the copy."""
    env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")}
    command = [sys.executable, *PYTEST, *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=env, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode in NOTHING_RUN:
        raise RuntimeError(f"{command}\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
