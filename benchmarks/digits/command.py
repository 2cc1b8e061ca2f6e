"""A benchmark on the digits as a command: options, run, record, tables and figure."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.digits import experiment, figure, table
from benchmarks.digits.experiment import Cell
from benchmarks.digits.methods import Method, Recipe
from benchmarks.digits.training import Pretraining
from benchmarks.harness import options, record


class Benchmark(NamedTuple):
    """One question and what answers it.

    Attributes:
      name: Of the module in `benchmarks` and of the files it writes.
      question: Shown above the figure.
      cells: The transfer tasks.
      methods: What is compared.
      weights: Of the regularizers, unless the command line says otherwise.
      pretraining: Settings of the source networks.
      recipe: Settings that the methods were built with.
    """

    name: str
    question: str
    cells: Sequence[Cell]
    methods: Sequence[Method]
    weights: list[float]
    pretraining: Pretraining
    recipe: Recipe


def main(benchmark: Benchmark, doc: str | None, argv: list[str] | None) -> None:
    """Run the benchmark with the options in `argv`, write the results and print them."""
    name = benchmark.name
    parser = options.parser(f"python -m benchmarks.{name}", doc, benchmark.weights, f"out/{name}")
    chosen = options.parse(parser, argv)
    start = time.perf_counter()
    results = experiment.run(
        benchmark.cells,
        benchmark.methods,
        weights=chosen.weights,
        seeds=chosen.seeds,
        folder=chosen.sources,
        pretraining=benchmark.pretraining,
        recipe=benchmark.recipe,
    )
    results = {
        "question": benchmark.question,
        "environment": record.environment(),
        "seconds": round(time.perf_counter() - start, 1),
        **results,
    }
    write(name, results, chosen.out)
    print(*(part(results) for part in (table.text, table.note, table.summary)), sep="\n\n")
    print(f"\n{results['seconds']:.0f} s. Wrote {name}.json, .md and .png to {chosen.out}")


def write(name: str, results: dict[str, Any], out: Path) -> None:
    """Write the record, the compact table and the figure."""
    record.write(out / f"{name}.json", results)
    compact = f"{table.markdown(results)}\n\n{table.note(results)}\n"
    (out / f"{name}.md").write_text(compact)
    figure.draw(results, results["question"]).savefig(out / f"{name}.png", dpi=150)
