"""What does a step cost on a GPU or TPU? The update next to a copy, and whole training steps.

    python benchmarks/cost/accelerator/__main__.py [--out FILE]      or python -m benchmarks.cost.accelerator

On the first device that jax finds; jax, optax, flax and NumPy are all it needs, and the repository,
which need not be installed. Goals, reported as reached or not:

- The update of 100 million parameters and more reaches 85 % of the bandwidth of a copy on the
  same device. Counted are the bytes that two passes cannot do without, N being those of one tree:
  8 N for `dtnh` on a pair with SGD and momentum (both gradients twice, parameters, momentum read;
  the last two written), 9 N for `add_l2_sp` (gradient, parameters, anchor twice; momentum; two
  written).
- The update takes less than 1 % of a training step of ResNet-50, 64 images of 224 px in bfloat16.

Before anything is timed, what `jit` compiles has to equal what eager jax computes, and the formula
in float64; if it does not, nothing is timed and the exit code is 1. Times are medians of
dispatches, each a loop of many iterations, parameters and state donated.

Without a GPU or TPU it says so in one line, and the exit code is 0: nothing has failed. `--cpu`
runs the same code on the CPU, everything small, for tests: its figures say nothing.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
if __name__ == "__main__" and not __package__:
    sys.path[0] = str(ROOT)  # in place of this folder, as for `python -m`

import jax  # noqa: E402

from benchmarks.cost.__main__ import text_of  # noqa: E402
from benchmarks.cost.accelerator import equality, training, update  # noqa: E402
from benchmarks.cost.accelerator.clock import copy_bandwidth  # noqa: E402
from benchmarks.cost.accelerator.networks import NETWORKS  # noqa: E402
from benchmarks.harness.options import OneLineParser  # noqa: E402
from benchmarks.harness.record import environment  # noqa: E402

GOAL = 0.01  # of a step of ResNet-50
SECONDS = 0.3  # of one dispatch
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")
RESULTS = ROOT / "benchmarks" / "results"
NO_MEASUREMENT = "On the CPU, everything small: these figures say nothing."

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; return 1 if compiled and eager updates differ."""
    chosen = parse(argv)
    if chosen.cpu:
        jax.config.update("jax_platforms", "cpu")
    elif (why := no_device()) is not None:
        print(why)
        return 0
    differences = equality.differences()
    unequal = equality.unequal(differences)
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    if unequal:
        print("\n".join(["Refused to time what is wrong:", *unequal]))
        return 1
    results = {"environment": environment(PACKAGES), "cpu": chosen.cpu, "differences": differences}
    results |= measured(chosen.cpu)
    print(text(results))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(
        prog="python -m benchmarks.cost.accelerator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add: Callable[..., Any] = parser.add_argument
    add("--cpu", action="store_true", help="the same code, small, on the CPU: for tests")
    add("--out", type=Path, metavar="FILE", help="write every figure as JSON")
    chosen = parser.parse_args(argv)
    if chosen.cpu and chosen.out and RESULTS in chosen.out.resolve().parents:
        parser.error(
            f"`--out` should be outside of benchmarks/results with `--cpu`, got {chosen.out}. "
            "What is small and on the CPU is no result."
        )
    return chosen


def no_device() -> str | None:
    """Return why there is nothing to measure on, None if there is a GPU or TPU."""
    try:
        backend = jax.default_backend()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        return f"Nothing was measured: jax {jax.__version__} cannot start a device ({reason})."
    if backend != "cpu":
        return None
    return f"Nothing was measured: jax {jax.__version__} finds no GPU or TPU here, only a CPU."


def measured(small: bool) -> dict[str, Any]:
    """Return the bandwidth of a copy, and both tables."""
    mib, seconds = (4, 0.0) if small else (1024, SECONDS)
    bandwidth = copy_bandwidth(mib, seconds)
    updates = update.rows(update.SMALL if small else update.trees(), bandwidth, seconds)
    networks = {name: n.small if small else n.full for name, n in NETWORKS.items()}
    steps = training.rows(networks, seconds)
    return {
        "copy GB/s": bandwidth / 1e9,
        "updates": updates,
        "steps": steps,
        "shares": shares(updates, steps),
    }


def shares(updates: Sequence[Row], steps: Sequence[Row]) -> list[Row]:
    """Return what the update of ResNet-50 takes of its step, whole and beyond SGD's own."""
    ms = {row["update"]: row["ms"] for row in updates if row["tree"] == "ResNet-50"}
    step = next((r["ms"] for r in steps if r["network"] == "ResNet-50"), None)
    if not ms or step is None:
        return []
    return [
        {
            "update": name,
            "of a step": ms[name] / step,
            "beyond SGD": (ms[name] - ms["SGD alone"]) / step,
            "note": f"goal of {GOAL:.0%} {'reached' if ms[name] < GOAL * step else 'NOT reached'}",
        }
        for name in ("dtnh", "add_l2_sp")
    ]


def text(results: dict[str, Any]) -> str:
    """Return what is printed."""
    worst = max(results["differences"].values())
    parts = [
        *([NO_MEASUREMENT] if results["cpu"] else []),
        f"compiled, eager and the formula agree to {worst:.0e}",
        f"a copy: {results['copy GB/s']:.4g} GB/s, read and written",
        "one update; floor and bytes accessed (XLA's count) in N, GB/s by the floor\n"
        + text_of(results["updates"]),
        "one training step\n" + text_of(results["steps"]),
    ]
    if results["shares"]:
        parts.append(
            "the update of ResNet-50 as a share of its step\n" + text_of(results["shares"])
        )
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
