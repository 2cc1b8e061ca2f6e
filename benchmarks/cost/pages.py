"""What the pages quote from the records of the cost of an update and of a step."""

from benchmarks.harness import tables
from benchmarks.harness.record import Results

SHOWN = ("SGD alone", "dtnh", "add_l2_sp", "dtnh, plain", "add_l2_sp, plain")
TIMED = ("dtnh", "add_l2_sp", "dtnh, inner=", "scale_by_adam_dtnh")


def before_sgd(results: Results) -> str:
    """Return bytes and memory of one update with SGD after it."""
    rows = {row["form"]: row for row in results["tables"][0]["rows"]}
    return _bytes_and_memory("after it: SGD with momentum", [rows[form] for form in SHOWN])


def with_adam(results: Results) -> str:
    """Return bytes and memory of one update with Adam."""
    return _bytes_and_memory("with Adam, after it the rate alone", results["tables"][1]["rows"])


def times(results: Results) -> str:
    """Return the time of an update relative to that of the optimizer alone."""
    found = {(row["optimizer"], row["form"]): row for row in results["tables"][-1]["rows"]}
    return tables.markdown(
        [
            {"form": form}
            | {
                f"with {optimizer}": _quartiles(found.get((optimizer, form)))
                for optimizer in ("momentum", "Adam")
            }
            for form in TIMED
        ]
    )


def steps(results: Results) -> str:
    """Return flops, memory and time of a training step with DTNH relative to one without."""
    return tables.markdown(
        [
            {
                "method": method,
                "flops": f"{row['flops ratio']:.3f}",
                "memory": f"{row['peak ratio']:.2f}",
                "time": _quartiles(row, "time ratio"),
            }
            for method in ("L2-SP + DTNH", "KnowDist + DTNH")
            for row in [_step(results, method)]
        ]
    )


def pair(results: Results) -> str:
    """Return the bound on the flops of both gradients relative to one."""
    return f"{_maps(results, 'stage4')['at most']:.2f}"


def late(results: Results) -> str:
    """Return the flops of both gradients where the regularizer sees the last stage."""
    return f"{_maps(results, 'stage4')['pair']:.2f}"


def early(results: Results) -> str:
    """Return the flops of both gradients where the regularizer sees an early stage only."""
    return f"{_maps(results, 'stage2')['pair']:.2f}"


def _bytes_and_memory(title: str, rows: list[Results]) -> str:
    return tables.markdown(
        [
            {
                title: row["form"],
                "bytes accessed": f"{row['bytes']:.1f} N",
                "asserted with jax 0.12": at_most and f"at most {at_most:.1f} N",
                "temporary memory": f"{row['temporary']:.2%} of N",
            }
            for row in rows
            for at_most in [row["bytes at most"]]
        ]
    )


def _quartiles(row: Results | None, name: str = "time") -> str | None:
    return f"{row[name]:.2f} ({row['low']:.2f} to {row['high']:.2f})" if row else None


def _step(results: Results, method: str) -> Results:
    (found,) = (row for row in results["tables"][0]["rows"] if row["method"] == method)
    return found


def _maps(results: Results, maps: str) -> Results:
    (found,) = (row for row in results["tables"][0]["rows"] if row["maps"] == maps)
    return found
