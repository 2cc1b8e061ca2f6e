"""What does a whole training step cost? ResNet-50, with DTNH against without.

    python -m benchmarks.cost.training_step [--wall] [--out benchmarks/results/cost.training_step.json]

Claims, for `optax_dtnh.models.resnet50` in training mode on 4 images of 96 px, from images to new
parameters, with SGD with momentum, a mask that leaves the head out, and everything donated that is
updated:

- L2-SP + DTNH takes at most 1.01 times the flops of plain L2-SP and 1.01 times its peak of memory:
  the regularizer's gradient is formed in place, nothing is stored.
- KnowDist + DTNH takes at most 1.67 times the flops of one step with the sum of loss and distance
  where the distance sees the last map, `stage4`, 1.55 where the last map is `stage3`, 1.32 for
  `stage2` and 1.15 for `stage1`, the teacher's maps given. With the teacher's forward pass in the
  step, which is the same for both, at most 1.51 for `stage4`.
- Its peak of memory is at most 1.2 times that of the sum: there is one more gradient.

`benchmarks.cost.knowdist` says the same of the gradients alone, with a control. Peak of memory:
arguments, temporary buffers and outputs, what is updated in place counted once. The figures are
XLA's own, for CPU: everything is compiled, nothing is run, except with `--wall`, which reports
times, from runs that alternate, and asserts nothing. The flops are asserted everywhere, memory on
jax 0.12, for which its bars are set. It takes two minutes on two CPU cores, one more with `--wall`.
The exit code is 1 if a bar is missed.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks.cost.__main__ import text_of
from benchmarks.cost.bars import storage_is_known
from benchmarks.cost.compiled import NOT_RUN
from benchmarks.cost.knowdist import Maps
from benchmarks.cost.tables import Table
from benchmarks.cost.training import (
    CLASSES,
    Bill,
    Step,
    abstract_of,
    bill_of,
    compiled,
    pair_and_sum,
    states_of,
    steps_of,
)
from benchmarks.cost.wall import Ratio, Run, paired_ratio, repeated
from benchmarks.harness.markdown import rows_as_table
from benchmarks.harness.record import environment
from optax_dtnh.models import ResNet, resnet50

BATCH, IMAGE, RUNS = 4, 96, 10
LAST: Maps = ("stage4",)

# Of each method, relative to the same one without DTNH.
WITHOUT = {"L2-SP + DTNH": "L2-SP", "KnowDist + DTNH": "KnowDist"}
BARS = {
    "L2-SP + DTNH": {"flops": 1.01, "peak": 1.01},
    "KnowDist + DTNH": {"flops": 1.51, "peak": 1.2},
}
STAGES = {LAST: 1.67, ("stage3",): 1.55, ("stage2",): 1.32, ("stage1",): 1.15}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables and return 1 if a bar is missed."""
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    print(f"jax {jax.__version__}, {jax.default_backend()}; flops in 1e9, memory in 1e6 bytes")
    tables = []
    for measure in (lambda: methods_table(resnet50, options.wall), lambda: stages_table(resnet50)):
        tables.append(table := measure())
        print(f"\n{table.title}\n{text_of(table.rows)}", flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record(tables), indent=1) + "\n")
        options.out.with_suffix(".md").write_text(markdown(tables))
    failures = [message for table in tables for message in table.failures]
    print("\n" + "\n".join(["Bars missed:", *failures] if failures else ["All hold."]))
    return 1 if failures else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost.training_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--wall", action="store_true", help="run steps and report their time")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON, and tables beside it")
    return parser.parse_args(argv)


def methods_table(make: Callable[..., ResNet], wall: bool) -> Table:
    """Measure the step of every method, with `wall` its time relative to the one without DTNH."""
    model = abstract_of(make)
    steps = steps_of(model, BATCH, IMAGE, LAST)
    programs = {k: compiled(step, model, None if wall else NOT_RUN) for k, step in steps.items()}
    bills = {name: bill_of(program) for name, program in programs.items()}
    times = {}
    if wall:
        runs = runs_of(make, steps, programs)
        times = {
            name: paired_ratio(runs[name], runs[without], RUNS) for name, without in WITHOUT.items()
        }
    rows = [row_of(name, bills, times if wall else None) for name in bills]
    timed = f"; time: quartiles of {RUNS} paired runs" if wall else ""
    title = (
        f"a training step of ResNet-50, {BATCH} images of {IMAGE} px, KnowDist on {LAST[0]} with "
        f"the teacher in the step; ratios to the same method without DTNH{timed}"
    )
    return Table(title, rows, [message for name in WITHOUT for message in missed(name, bills)])


def row_of(
    name: str, bills: Mapping[str, Bill], times: Mapping[str, Ratio] | None
) -> dict[str, Any]:
    """Return the row of a method."""
    bill, without = bills[name], bills[WITHOUT.get(name, name)]
    row = {
        "method": name,
        "flops": bill.flops / 1e9,
        "peak": bill.peak / 1e6,
        "temporary": bill.temporary / 1e6,
        "flops ratio": bill.flops / without.flops if name in WITHOUT else None,
        "peak ratio": bill.peak / without.peak if name in WITHOUT else None,
    }
    if times is None:
        return row
    ratio = times[name]._asdict() if name in times else dict.fromkeys(Ratio._fields)
    return row | {"time ratio": ratio["median"], "low": ratio["low"], "high": ratio["high"]}


def missed(name: str, bills: Mapping[str, Bill]) -> list[str]:
    """Return a message for every bar that a method misses."""
    found, without = bills[name]._asdict(), bills[WITHOUT[name]]._asdict()
    bars = BARS[name] if storage_is_known() else {"flops": BARS[name]["flops"]}
    return [
        f"{name}: {quantity} {found[quantity] / without[quantity]:.4f}, at most {bar}"
        for quantity, bar in bars.items()
        if not found[quantity] / without[quantity] <= bar
    ]


def stages_table(make: Callable[..., ResNet], bars: Mapping[Maps, float] = STAGES) -> Table:
    """Count the flops of a step of KnowDist + DTNH by the map that the distance sees."""
    rows, failures = [], []
    for maps, bar in bars.items():
        ratio = stage_ratio(make, maps)
        rows.append({"map": maps[-1], "flops ratio": ratio, "at most": bar})
        if not ratio <= bar:
            failures.append(f"{maps[-1]}: flops {ratio:.4f}, at most {bar}")
    title = "a step of KnowDist + DTNH relative to one of KnowDist, the teacher's maps given"
    return Table(title, rows, failures)


def stage_ratio(make: Callable[..., ResNet], maps: Maps) -> float:
    """Return the flops of a step of KnowDist + DTNH, relative to one of KnowDist."""
    model = abstract_of(make)
    steps = pair_and_sum(model, BATCH, IMAGE, maps)
    pair, one = (bill_of(compiled(step, model, NOT_RUN)).flops for step in steps)
    return pair / one


def runs_of(
    make: Callable[..., ResNet],
    steps: Mapping[str, Step],
    programs: Mapping[str, jax.stages.Compiled],
) -> dict[str, Run]:
    """Return for every method a function that makes one more step, and its seconds."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, IMAGE, IMAGE, 3), np.float32)
    labels = rng.integers(0, CLASSES, BATCH, np.int32)
    model = make(classes=CLASSES, rngs=nnx.Rngs(0))
    runs = {}
    for name, step in steps.items():
        params, statistics = jax.tree.map(jax.numpy.copy, states_of(model))  # they are donated
        carry = params, statistics, step.transformation.init(params)
        data = images, labels, states_of(model)
        runs[name] = repeated(programs[name], carry, data[: len(step.data)])
    return runs


def markdown(tables: Sequence[Table]) -> str:
    """Return the tables as Markdown."""
    return (
        "\n\n".join(
            f"{table.title[0].upper()}{table.title[1:]}:\n\n{rows_as_table(table.rows)}"
            for table in tables
        )
        + "\n"
    )


def record(tables: Sequence[Table]) -> dict[str, Any]:
    """Return what is written as JSON."""
    return {"environment": environment(), "tables": [table._asdict() for table in tables]}


if __name__ == "__main__":
    sys.exit(main())
