"""What the pages quote from the record on an accelerator."""

from functools import partial

from benchmarks.harness.record import Results
from benchmarks.harness.tables import markdown, only
from benchmarks.paper.cells import cells as paper_cells
from benchmarks.paper.contents import TABLE

STEPS = 9000  # of a run of the paper


def device(results: Results) -> str:
    """Return the name of the device."""
    return results["compiled for"]


def updates(results: Results) -> str:
    """Return the share of a copy's bandwidth that each update reaches, by tree."""
    rows = results["tables"][1]["rows"]
    by_update: dict[str, dict[str, str]] = {}
    for row in rows:
        tree = f"{row['tree']} ({row['parameters'] / 1e6:.0f} M)"
        shown = by_update.setdefault(row["update"], {"update": row["update"]})
        shown[tree] = f"{row['ms']:.2f} ms, {row['of a copy']:.0%}"
    return markdown(list(by_update.values()))


def steps(results: Results) -> str:
    """Return the time of a training step by every method, by network."""
    rows = results["tables"][2]["rows"]
    return markdown(
        [
            {
                "network": f"{row['network']}, {row['batch']}",
                "method": row["method"],
                "step": f"{row['ms']:.1f} ms",
                "relative to the same without DTNH": row["ratio"] and f"{row['ratio']:.2f}",
            }
            for row in rows
        ]
    )


def ratio(results: Results, method: str) -> str:
    """Return the time of a step of a ResNet-50 relative to the same without DTNH."""
    return f"{only(results['tables'][2]['rows'], network='ResNet-50', method=method)['ratio']:.2f}"


l2_sp, knowdist = partial(ratio, method="L2-SP + DTNH"), partial(ratio, method="KnowDist + DTNH")


def paper(results: Results) -> str:
    """Return the hours that the steps of the paper's table take, without loading images."""
    cells = len(list(paper_cells(TABLE))) // len(TABLE.methods)
    methods = ["fine-tuning", "L2-SP + DTNH", "L2-SP + DTNH", "KnowDist", "KnowDist + DTNH"]
    rows = results["tables"][2]["rows"]
    step = sum(only(rows, network="ResNet-50", method=name)["ms"] for name in methods) / 1000
    return f"{cells * STEPS * step / 3600:.0f}"
