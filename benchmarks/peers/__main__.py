"""What does the same step cost elsewhere? In torch, by hand and with TorchJD, and in optax by hand.

    make peers

or, in an environment with the extra `peers`, `python -m benchmarks.peers`. Claims:

- The same numbers give the same updates as two `autograd.grad` and the rule by hand in torch:
  within 1e-5 of a combination in float32 (ours within 1e-6 of the formula in float64), within 1e-9
  of the parameters after a step in float64, of an MLP, of a residual CNN, and of a ResNet-18 with
  L2-SP and with KnowDist, batch normalization in training mode, weights shared through a
  checkpoint. The gradients conflict in all of them.
- Two gradients cost at most 1.67 times the flops of one.

Measured, and not asserted, next to torch by hand, TorchJD's PCGrad, UPGrad and MGDA, and optax by
hand: the time of the combination alone on trees of 26 and 87 million parameters, of a whole step
relative to the same framework's own step with one gradient, and images per second and peak memory
of a fine-tuning step. TorchJD's directions are others: see the note under the tables.

It takes some minutes on two cores. Every framework runs in a process of its own, on the same cores,
and all take turns. Threads of OpenMP wait passively, or it refuses to start: busy waiting once
turned a comparison around. XLA of jax 0.10 stores the products of an inner product on a CPU, 0.12
does not: record with Python 3.12 or newer. The exit code is 1 if a claim fails.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import record
from benchmarks.harness.options import OneLineParser
from benchmarks.peers import measure, report
from benchmarks.peers.agreement import BARS
from benchmarks.peers.waiting import passive
from benchmarks.peers.work import IMAGES

PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "torch", "torchjd")
NEEDED = ("torch", "torchjd", "qpsolvers", "quadprog", "safetensors")
TABLES = {
    "combination": measure.combinations,
    "step": measure.steps,
    "finetuning": measure.finetuning,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print and write the tables, and return 1 if a claim fails."""
    parser = options()
    chosen = parser.parse_args(argv)
    os.environ["JAX_PLATFORMS"] = "cpu"
    start = time.perf_counter()
    try:
        passive(os.environ)
        check_packages()
        tables = measured(chosen.threads, chosen.rounds)
    except (ImportError, RuntimeError, ValueError) as error:
        parser.error(str(error))
    results = {
        "environment": record.environment(PACKAGES),
        "seconds": round(time.perf_counter() - start, 1),
        "threads": chosen.threads,
        "rounds": chosen.rounds,
        "failures": measure.failures_of(tables),
        "bars": BARS | {"flops": measure.FLOPS},
        **tables,
    }
    write(chosen.out, results)
    print("\n".join(["", *results["failures"]]) if results["failures"] else "\nAll claims hold.")
    return 1 if results["failures"] else 0


def options() -> OneLineParser:
    """Return the parser of the command line."""
    parser = OneLineParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add: Callable[..., Any] = parser.add_argument
    cores = min(2, os.cpu_count() or 1)
    add("--threads", type=int, default=cores, metavar="N", help="of each framework (default: 2)")
    add("--rounds", type=int, default=5, metavar="N", help="runs of each contender (default: 5)")
    out = Path("out/peers")
    add("--out", type=Path, default=out, metavar="DIR", help=f"folder (default: {out})")
    return parser


def check_packages() -> None:
    """Refuse to start without what is compared.

    Raises:
      ImportError: A package is missing.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"`{missing[0]}` should be importable, because it is compared with, got no such "
            "package. Run `make peers`, which sets up .venv-peers, and use the Python in there."
        )


def measured(threads: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table, and print them as they come."""
    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        place = measure.Place(Path(folder), threads, rounds)
        for name, rows in TABLES.items():
            tables[name] = list(rows(place))
            print(report.text({name: tables[name]}, IMAGES), end="\n\n", flush=True)
    return tables


def write(out: Path, results: dict[str, Any]) -> None:
    """Write `peers.json` and `peers.md`, and print the note."""
    tables = {name: results[name] for name in TABLES}
    note = report.note(results)
    print(note)
    out.mkdir(parents=True, exist_ok=True)
    record.write(out / "peers.json", results)
    (out / "peers.md").write_text(f"{report.text(tables, IMAGES)}\n\n{note}\n")


if __name__ == "__main__":
    sys.exit(main())
