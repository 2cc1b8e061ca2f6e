"""The tables of `benchmarks.peers`: each does the same work in every framework, taking turns."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flax import nnx
from safetensors.numpy import load_file, save_file

from benchmarks.harness.timing import Times, in_turns, paired, spread
from benchmarks.peers import inputs, work
from benchmarks.peers.client import Call, started
from benchmarks.peers.inputs import Arrays, Spec
from benchmarks.peers.work import Row, relative
from optax_dtnh.models import resnet18, save_pretrained

SEED = 0  # of the checkpoint: with it, both regularizers conflict with the loss


THREADS = min(2, os.cpu_count() or 1)  # of each framework
ROUNDS = 5  # in each of which every contender runs once
Jobs = Mapping[str, Spec]


def spec_of(task: str, **options: Any) -> Spec:
    """Return what a contender is built from, but for its name and framework."""
    return {"task": task, "threads": THREADS, "dtype": "float32", **options}


def combinations(folder: Path) -> Iterator[Row]:
    """Yield a row for every tree and contender: times and agreement in float32."""
    for tree, shapes in work.TREES.items():
        spec = spec_of("combine", shapes=shapes)
        jobs = {
            name: spec | {"contender": name, "framework": framework}
            for name, framework in work.FRAMEWORK.items()
        }
        exact = work.formula(*inputs.gradient_pair(shapes))
        oracle = spec | {"contender": inputs.ORACLE, "framework": "torch"}
        apart = differences(folder, jobs | {inputs.ORACLE: oracle}, work.REFERENCE, exact)
        apart["ours"]["oracle"] = apart[inputs.ORACLE]["from float64"]
        times = times_of(folder, jobs)
        for name in jobs:
            ms = spread([1e3 * seconds for seconds in times[name]])
            measured = {"ms": ms, "ratio": paired(times, name, work.REFERENCE)}
            yield {"work": tree, "contender": name} | measured | apart[name]


def finetuning(folder: Path) -> Iterator[Row]:
    """Yield a row for every method and contender: images per second, memory, agreement."""
    spec = spec_of("finetune", **work.IMAGES)
    with started("torch", THREADS, cache=folder / "compiled") as torch:
        spec |= write_checkpoints(torch, spec, folder)
    jobs = {
        named(*step): spec | dict(zip(("method", "contender", "framework"), step, strict=True))
        for step in (*work.SINGLE_STEPS, *work.TUNINGS)
    }
    times = times_of(folder, jobs)
    apart: dict[str, Row] = {}
    for method in work.PLAIN:
        of_method = {name: job for name, job in jobs.items() if job["method"] == method}
        apart |= differences(folder, of_method, named(method, work.REFERENCE, "torch"))
    for name, job in jobs.items():
        measured = {"images/s": spread([work.IMAGES["batch"] / seconds for seconds in times[name]])}
        row = apart.get(name, {"difference": None}) | memory(folder, job) | measured
        yield row | tuning_ratios(job, times)


def named(method: str, contender: str, framework: str) -> str:
    """Return what tells a fine-tuning step from the others."""
    return f"{method}, {contender}, {framework}"


def tuning_ratios(job: Spec, times: Times) -> Row:
    """Return the names of a fine-tuning step and its times relative to those of others."""
    method, contender, framework = step = job["method"], job["contender"], job["framework"]
    row = {"work": work.TITLES[method], "contender": contender}
    if method not in work.PLAIN:
        return row | {"contender": framework, "ratio": None, "to torch": None}
    single = named(work.PLAIN[method], "single", framework)
    ratios = {"ratio": single, "to torch": named(method, work.REFERENCE, "torch")}
    return row | {name: paired(times, named(*step), base) for name, base in ratios.items()}


@contextmanager
def both(folder: Path, *, x64: bool = False) -> Iterator[dict[str, Call]]:
    """Start a process for each framework."""
    start = partial(started, threads=THREADS, cache=folder / "compiled", x64=x64)
    with start("jax") as jax, start("torch") as torch:
        yield {"jax": jax, "torch": torch}


def times_of(folder: Path, jobs: Jobs) -> Times:
    """Return the seconds of all jobs, which take turns."""
    with both(folder) as clients:
        runs = {}
        for name, spec in jobs.items():
            call = clients[spec["framework"]]
            call("build", name, spec)
            runs[name] = partial(call, "run", name)
        return in_turns(runs, ROUNDS)


def differences(folder: Path, jobs: Jobs, base: str, exact: Arrays | None = None) -> dict[str, Row]:
    """Return how far the updates of one run are from those of `base`.

    They are computed in float64, unless there are `exact` updates to compare with as well.
    """
    with both(folder, x64=exact is None) as clients:

        def updates(spec: Spec) -> Arrays:
            dtype = "float64" if exact is None else "float32"
            return updates_of(clients[spec["framework"]], spec | {"dtype": dtype})

        expected, rows = updates(jobs[base]), {}
        for name, spec in jobs.items():
            found = updates(spec)
            rows[name] = {"difference": relative(found, expected)}
            rows[name] |= {} if exact is None else {"from float64": relative(found, exact)}
    return rows


def updates_of(call: Call, spec: Spec) -> Arrays:
    """Return what a contender has changed after one run."""
    call("build", "it", spec)
    call("run", "it")
    found = call("updates", "it")
    call("drop")
    return found


def memory(folder: Path, spec: Spec) -> Row:
    """Return the peak of resident memory of a process that makes this step alone, in MiB."""
    cache = folder / "compiled"
    with started(spec["framework"], THREADS, cache=cache, allocator={}) as call:
        call("build", "it", spec)
        for _ in range(2):
            call("run", "it")
        peak, imported = call("memory")
    return {"peak MiB": peak, "after imports MiB": imported}


def write_checkpoints(torch: Call, spec: Spec, folder: Path) -> dict[str, str]:
    """Write a pretrained ResNet-18 and the same a step later; return the paths by role.

    The student has followed the loss's gradient once, so that L2-SP pulls against the loss. It is
    torch that computes the gradient.
    """
    paths = {role: str(folder / f"{role}.safetensors") for role in ("teacher", "student")}
    model = resnet18(classes=spec["classes"], rngs=nnx.Rngs(SEED))
    save_pretrained(model, paths["teacher"])
    same = spec | {"student": paths["teacher"], "teacher": paths["teacher"], "dtype": "float32"}
    moves = updates_of(torch, same | {"method": "none", "contender": "single"})
    tensors = load_file(paths["teacher"])
    moved = {name: tensors[name] + moves[name] for name in moves}
    save_file(tensors | moved, paths["student"])
    return paths
