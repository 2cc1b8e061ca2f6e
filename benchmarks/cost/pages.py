"""What the pages quote from the records of the cost of an update and of a step."""

from functools import partial

from benchmarks.harness.record import Results
from benchmarks.harness.tables import formatted, markdown, only

SHOWN = ("SGD alone", "dtnh", "add_l2_sp", "dtnh, plain", "add_l2_sp, plain")
TIMED = ("dtnh", "add_l2_sp", "dtnh, labels=per_element", "add_l2_sp, labels=per_element")
TIMED += ("dtnh, inner=", "scale_by_adam_dtnh")


def before_sgd(results: Results) -> str:
    """Return bytes and memory of one update with SGD after it."""
    rows = results["tables"][0]["rows"]
    shown = [only(rows, form=form) for form in SHOWN]
    return _bytes_and_memory("after it: SGD with momentum", shown)


def with_adam(results: Results) -> str:
    """Return bytes and memory of one update with Adam."""
    return _bytes_and_memory("with Adam, after it the rate alone", results["tables"][1]["rows"])


def with_momentum(results: Results) -> str:
    """Return bytes and memory of one update with SGD with momentum, form by form."""
    rows = [row for row in results["tables"][-1]["rows"] if row["optimizer"] == "momentum"]
    return _bytes_and_memory("with SGD with momentum", rows)


def times(results: Results) -> str:
    """Return the time of an update relative to that of the optimizer alone."""
    found = {(row["form"], row["optimizer"]): row for row in results["tables"][-1]["rows"]}
    return markdown(
        [
            {
                "form": form,
                "with momentum": _quartiles(found.get((form, "momentum"))),
                "with Adam": _quartiles(found.get((form, "Adam"))),
            }
            for form in TIMED
        ]
    )


def steps(results: Results) -> str:
    """Return flops, memory and time of a training step with DTNH relative to one without."""
    rows, columns = results["tables"][0]["rows"], {k: f"{{{k}}}" for k in ("network", "method")}
    columns |= {"flops": "{flops ratio:.3f}", "memory": "{peak ratio:.2f}"}
    columns["time"] = "{time ratio:.2f} ({low:.2f} to {high:.2f})"
    return formatted([row for row in rows if row["time ratio"]], columns)


def step_memory(results: Results, network: str = "EfficientNet-Lite0, 16 of 224 px") -> str:
    """Return the memory of a step of KnowDist with DTNH relative to one without."""
    rows = results["tables"][0]["rows"]
    return f"{only(rows, network=network, method='KnowDist + DTNH')['peak ratio']:.3f}"


def flops(results: Results, maps: str, column: str) -> str:
    """Return the flops of both gradients relative to one, by the maps that are seen."""
    return f"{only(results['tables'][0]['rows'], maps=maps)[column]:.2f}"


def over_periods(results: Results) -> str:
    """Return flops and memory of `value_and_dtnh_grad` relative to one gradient."""
    shown = ["every 2", "every 4", "every 8", "flops renewing", "memory renewing", "memory between"]
    columns = {"network": "{network}"} | {k: f"{{{k}:.2f}}" for k in shown}
    return formatted(results["tables"][0]["rows"], columns)


def table(results: Results, title: str) -> str:
    """Return the table whose title begins like this."""
    (found,) = (t for t in results["tables"] if t["title"].startswith(title))
    return markdown(found["rows"])


profile = partial(table, title="Share of")
both_ways = partial(table, title="A step")
spelled = partial(table, title="Gradients of parts")
first_step = partial(table, title="The first step")
pair = partial(flops, maps="stage4", column="at most")
late = partial(flops, maps="stage4", column="pair")
early = partial(flops, maps="stage2", column="pair")


def _bytes_and_memory(title: str, rows: list[Results]) -> str:
    return markdown(
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


def _quartiles(row: Results | None) -> str | None:
    return f"{row['time']:.2f} ({row['low']:.2f} to {row['high']:.2f})" if row else None
