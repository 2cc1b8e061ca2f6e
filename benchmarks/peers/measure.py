"""The tables of `benchmarks.peers`: each does the same work in every framework, taking turns."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers import agreement, checkpoints, inputs
from benchmarks.peers.agreement import Row, relative
from benchmarks.peers.client import Client, started
from benchmarks.peers.contender import Spec
from benchmarks.peers.ratios import Times, in_turns, paired, spread
from benchmarks.peers.work import (
    FRAMEWORK,
    IMAGES,
    NETWORKS,
    PLAIN,
    REFERENCE,
    SINGLE_STEPS,
    TITLES,
    TREES,
    TUNINGS,
    Tuning,
)

FLOPS = 1.67  # of a pair, relative to one gradient: one more backward pass of the same length


class Place(NamedTuple):
    """Where measurements run: folder for files, threads, and rounds by table."""

    folder: Path
    threads: int
    rounds: int

    def spec(self, task: str, **options: Any) -> Spec:
        """Return what a contender is built from."""
        return {"task": task, "threads": self.threads, "dtype": "float32", **options}


@contextmanager
def both(place: Place, *, x64: bool = False) -> Iterator[dict[str, Client]]:
    """Start a process for each framework."""
    start = partial(started, threads=place.threads, cache=place.folder / "compiled", x64=x64)
    with start("jax") as jax, start("torch") as torch:
        yield {"jax": jax, "torch": torch}


# --- The combination alone


def combinations(place: Place) -> Iterator[Row]:
    """Yield a row for every tree and contender, times and agreement in float32."""
    for tree, shapes in TREES.items():
        with both(place) as clients:
            for name, framework in FRAMEWORK.items():
                spec = place.spec("combine", contender=name, shapes=shapes)
                clients[framework].call("build", name, spec)
            apart = combination_differences(clients, place, shapes)
            times = in_turns(_runs(clients, FRAMEWORK), place.rounds)
        for name in FRAMEWORK:
            ratio = paired(times, name, REFERENCE)
            yield _row(tree, name, ms=_ms(times, name), ratio=ratio, **apart[name])


def combination_differences(
    clients: dict[str, Client], place: Place, shapes: Any
) -> dict[str, dict[str, float]]:
    """Return how far every contender is from torch by hand, and from the formula in float64."""
    exact = agreement.formula(*inputs.gradient_pair(shapes, "float32"))
    expected = clients[FRAMEWORK[REFERENCE]].updates(REFERENCE, place.folder)
    apart = {}
    for name, framework in FRAMEWORK.items():
        found = clients[framework].updates(name, place.folder)
        apart[name] = {
            "difference": relative(found, expected),
            "from float64": relative(found, exact),
        }
    return apart


# --- Steps of small networks


def steps(place: Place) -> Iterator[Row]:
    """Yield a row for every network and contender: times in float32, agreement in float64."""
    for title, network in NETWORKS.items():
        apart = step_differences(place, network)
        with both(place) as clients:
            names = {f"single, {framework}": framework for framework in clients} | FRAMEWORK
            about = {}
            for name, framework in names.items():
                spec = place.spec("step", network=network, contender=name.partition(", ")[0])
                spec |= {"contender": name} if name in FRAMEWORK else {}
                about[name] = clients[framework].call("build", name, spec)
            times = in_turns(_runs(clients, names), place.rounds)
        for name, framework in FRAMEWORK.items():
            base = f"single, {framework}"
            flops = about[name]["flops"] / about[base]["flops"]
            measured = {"ms": _ms(times, name), "ratio": paired(times, name, base)}
            yield _row(title, name, **measured, flops=flops, difference=apart[name])


def step_differences(place: Place, network: str) -> dict[str, float]:
    """Return how far the parameters after one step are from those of torch by hand."""
    with both(place, x64=True) as clients:
        found = {}
        for name, framework in FRAMEWORK.items():
            spec = place.spec("step", network=network, contender=name, dtype="float64")
            clients[framework].call("build", name, spec)
            found[name] = clients[framework].updates(name, place.folder)
    return {name: relative(updates, found[REFERENCE]) for name, updates in found.items()}


# --- Fine-tuning a ResNet-18


def finetuning(place: Place) -> Iterator[Row]:
    """Yield a row for every method and contender: images per second, memory, agreement."""
    with both(place) as clients:
        paths = checkpoints.write(clients["torch"], place.spec("finetune", **IMAGES), place.folder)
        spec = place.spec("finetune", **IMAGES, **paths)
        tunings = {tuning.name: tuning for tuning in (*SINGLE_STEPS, *TUNINGS)}
        for tuning in tunings.values():
            _build(clients[tuning.framework], tuning, spec)
        frameworks = {name: tuning.framework for name, tuning in tunings.items()}
        times = in_turns(_runs(clients, frameworks), place.rounds)
    apart = tuning_differences(place, spec)
    for tuning in tunings.values():
        yield tuning_row(tuning, times, memory(place, tuning, spec), apart.get(tuning.name))


def tuning_row(tuning: Tuning, times: Times, mib: Row, difference: float | None) -> Row:
    """Return the row of one step."""
    name, method = tuning.name, tuning.method
    contender = tuning.contender if difference is not None else tuning.framework
    row = _row(TITLES[method], contender, difference=difference, **mib)
    row["images/s"] = spread([IMAGES["batch"] / seconds for seconds in times[name]])
    row["ratio"] = row["to torch"] = None
    if method in PLAIN:
        single = Tuning(PLAIN[method], "single", tuning.framework).name
        row["ratio"] = paired(times, name, single)
        row["to torch"] = paired(times, name, Tuning(method, REFERENCE, "torch").name)
    return row


def tuning_differences(place: Place, spec: Spec) -> dict[str, float]:
    """Return how far the parameters after one step are from those of torch by hand."""
    found = {}
    with both(place, x64=True) as clients:
        for tuning in TUNINGS:
            client = clients[tuning.framework]
            _build(client, tuning, spec | {"dtype": "float64"})
            found[tuning.name] = client.updates(tuning.name, place.folder)
            client.call("drop")
    return {
        tuning.name: relative(
            found[tuning.name], found[Tuning(tuning.method, REFERENCE, "torch").name]
        )
        for tuning in TUNINGS
    }


def memory(place: Place, tuning: Tuning, spec: Spec) -> Row:
    """Return the peak of resident memory of a process that makes this step alone, in MiB."""
    cache = place.folder / "compiled"
    with started(tuning.framework, place.threads, cache=cache, allocator={}) as client:
        _build(client, tuning, spec)
        for _ in range(2):
            client.call("run", tuning.name)
        found = client.call("memory")
    return {"peak MiB": found["peak"], "after imports MiB": found["imported"]}


def _build(client: Client, tuning: Tuning, spec: Spec) -> None:
    chosen = {"method": tuning.method, "contender": tuning.contender}
    client.call("build", tuning.name, spec | chosen)


def _runs(clients: dict[str, Client], names: Mapping[str, str]) -> dict[str, Any]:
    return {name: partial(clients[f].call, "run", name) for name, f in names.items()}


def _ms(times: Times, name: str) -> Any:
    return spread([1e3 * seconds for seconds in times[name]])


def _row(work: str, contender: str, **measured: Any) -> Row:
    return {"work": work, "contender": contender, **measured}


def failures_of(tables: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return a message for everything that is asserted and does not hold."""
    failures = []
    for name, rows in tables.items():
        for row in rows:
            if row["difference"] is not None:
                dtype = "float32" if name == "combination" else "float64"
                failures += agreement.missed(row, dtype)
            if row["contender"] == "ours" and not row.get("flops", 0) <= FLOPS:
                where = f"{row['work']}, ours"
                failures.append(f"{where}: flops {row['flops']:.3f}, at most {FLOPS}")
    return failures
