"""What the pages quote from the records of the cost of an update and of a step."""

from collections.abc import Collection
from functools import partial

from benchmarks.harness.record import Results
from benchmarks.harness.tables import formatted, markdown, only

NAMES = {"momentum": "SGD with momentum", "Adam": "Adam"}
SHOWN = ("alone", "dtnh", "add_l2_sp", "dtnh, inner=", "scale_by_adam_dtnh")
TIMED = ("dtnh", "add_l2_sp", "dtnh, labels=per_element", "add_l2_sp, labels=per_element")
TIMED += ("dtnh, inner=", "scale_by_adam_dtnh")


def bytes_accessed(results: Results, optimizer: str, forms: Collection[str] = ()) -> str:
    """Return bytes and memory of one update with an optimizer, of some forms or of all."""
    rows = [row for row in results["tables"][-1]["rows"] if row["optimizer"] == optimizer]
    return markdown(
        [
            {
                f"with {NAMES[optimizer]}": row["form"],
                "bytes accessed": f"{row['bytes']:.1f} N",
                "asserted with jax 0.12": f"at most {row['bytes at most']:.1f} N",
                "temporary memory": f"{row['temporary']:.2%} of N",
            }
            for row in rows
            if row["form"] in (forms or row["form"])
        ]
    )


with_momentum = partial(bytes_accessed, optimizer="momentum")
with_adam = partial(bytes_accessed, optimizer="Adam", forms=SHOWN)


def instructions(results: Results) -> str:
    """Return the instructions of an update for each small leaf, with `dtnh`."""
    rows = results["tables"][0]["rows"]
    few, many = (only(rows, form="dtnh", leaves=n)["instructions"] for n in (100, 200))
    return str((many - few) // 100)


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


def pair(results: Results) -> str:
    """Return the flops of both gradients relative to one, the most over the networks."""
    return f"{max(row['flops renewing'] for row in results['tables'][0]['rows']):.2f}"


def early(results: Results) -> str:
    """Return them where the regularizer sees the maps of `stage2`."""
    row = only(results["tables"][0]["rows"], network="ResNet-18, stage2")
    return f"{row['flops renewing']:.2f}"


def over_periods(results: Results) -> str:
    """Return flops and memory of `value_and_dtnh_grad` relative to one gradient."""
    shown = ["every 2", "every 4", "every 8", "flops renewing", "memory renewing", "memory between"]
    columns = {"network": "{network}"} | {k: f"{{{k}:.2f}}" for k in shown}
    return formatted(results["tables"][0]["rows"], columns)


def _quartiles(row: Results | None) -> str | None:
    return f"{row['time']:.2f} ({row['low']:.2f} to {row['high']:.2f})" if row else None
