"""Put one fault after the other into a copy of the repository and see that the tests notice.

    python -m tests.mutants [LIST ...]     # such as core; all lists without

A mutant whose own tests all pass has survived. The exit code is 1 if one survives or fits nowhere.
CI does not run this: it takes about 20 seconds a mutant.
"""

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mutants import Mutant

ROOT = Path(__file__).resolve().parents[2]
LISTS = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
PYTEST = ("-m", "pytest", "-x", "-q", "-m", "not long", "-p", "no:cacheprovider")
NOTHING_RUN = (4, 5)  # exit codes of pytest
TIMEOUT = 1800  # seconds, for a mutant that never ends


def main(names: list[str]) -> int:
    """Run the lists, and return 1 unless every mutant is killed."""
    lists = [importlib.import_module(f"tests.mutants.{name}") for name in names or LISTS]
    mutants = [mutant for found in lists for mutant in found.MUTANTS]
    problems = [problem for mutant in mutants if (problem := misplaced(mutant))]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy_to(copy)
        problems += [] if problems else survivors(copy, mutants)
    print("\n".join(["Not killed:", *problems] if problems else [f"{len(mutants)} killed."]))
    return 1 if problems else 0


def survivors(copy: Path, mutants: list[Mutant]) -> list[str]:
    """Return the mutants that their own tests do not notice."""
    tests = sorted({path for mutant in mutants for path in mutant.tests.split()})
    if not passes(copy, *tests):
        return [f"the tests fail without a mutant: {' '.join(tests)}"]
    return [named(mutant) for mutant in mutants if not killed(copy, mutant)]


def named(mutant: Mutant) -> str:
    """Return a mutant in one line."""
    old, new = (" ".join(text.split()) for text in (mutant.old, mutant.new))
    return f"{mutant.path}: {old:.40} -> {new:.40}"


def misplaced(mutant: Mutant) -> str | None:
    """Return what is wrong with a mutant that does not fit exactly one place."""
    count = (ROOT / mutant.path).read_text().count(mutant.old)
    return None if count == 1 else f"{mutant.path} has {count} times: {mutant.old!r}"


def copy_to(folder: Path) -> None:
    """Copy all files that git knows or could add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def killed(copy: Path, mutant: Mutant) -> bool:
    """Return whether its own tests notice a mutant, and print it."""
    path = copy / mutant.path
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        noticed = not passes(copy, *mutant.tests.split())
    finally:
        path.write_text(text)
    print("killed" if noticed else "survived", named(mutant), flush=True)
    return noticed


def passes(copy: Path, *tests: str) -> bool:
    """Return whether tests pass in the copy."""
    env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")}
    command = [sys.executable, *PYTEST, "-n", "0", *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=env, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode in NOTHING_RUN:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
