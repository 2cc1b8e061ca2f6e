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
PYTEST = ("-m", "pytest", "-x", "-q", "-m", "not long", "-p", "no:cacheprovider", "-n", "0")
NOTHING_RUN = (4, 5)  # exit codes of pytest
TIMEOUT = 1800  # seconds, for a mutant that never ends


def main(names: list[str]) -> int:
    """Run the lists, and return 1 unless every mutant is killed."""
    lists = [importlib.import_module(f"tests.mutants.{name}") for name in names or LISTS]
    mutants = [mutant for found in lists for mutant in found.MUTANTS]
    problems = [m for m in mutants if (ROOT / m.path).read_text().count(m.old) != 1]
    if not problems:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "copy")
            shutil.copytree(
                ROOT, copy, ignore=shutil.ignore_patterns(".[gv]*", ".cache", "site", "dist")
            )
            if not passes(copy, {path for mutant in mutants for path in mutant.tests.split()}):
                raise RuntimeError("the tests fail without a mutant")
            problems = [mutant for mutant in mutants if not killed(copy, mutant)]
    print("\n".join(["Not killed:", *map(str, problems)] if problems else ["All killed."]))
    return 1 if problems else 0


def killed(copy: Path, mutant: Mutant) -> bool:
    """Return whether its own tests notice a mutant, and print it."""
    path = copy / mutant.path
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        noticed = not passes(copy, mutant.tests.split())
    finally:
        path.write_text(text)
    print("killed" if noticed else "survived", mutant, flush=True)
    return noticed


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
