"""All runs as data, named before anything is run; those of the tuning decide rates and weights."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.record import Results

WEIGHTS = {"L2-SP": (0.1, 1.0, 10.0, 100.0), "KnowDist": (0.01, 0.1, 1.0, 10.0)}
RATES = (3e-4, 1e-3, 3e-3)
STRONG = {name: weights[-1] for name, weights in WEIGHTS.items()}
SOURCES = GOOD, BAD = ("ImageNet", "shuffled")
TUNING_SEEDS = range(100, 104)
BASIC = ("plain", "whole tree", "per element")
ONE_PASS = ("every 2", "every 4", "in the features")
SPOILING_ROUNDS, MEMORIZED = 8, 0.1  # of all steps, fewer if every loss is small before
TENTH = {name: (weight / 10,) for name, weight in STRONG.items()}
ADAM_RATE = 1e-4
MOMENTUM = (0.0, 0.0, 0.9)  # of the sum, as in SGD with momentum
ASIDE = ("tuning", "spoiling")  # cells with images of their own


class Run(NamedTuple):
    """One fine-tuning run. Fine-tuning without a regularizer is one at weight 0."""

    cell: str
    method: str
    regularizer: str
    weight: float
    rate: float
    seed: int
    source: str = BAD
    shots: int = 40  # images of each class
    labels: str = "right"  # or 40 % "redrawn", or "shuffled"
    batch: int = 16
    adam: bool = False  # inside, the regularizer decoupled
    smoothing: float = 0.0
    momenta: tuple[float, float, float] = MOMENTUM
    mix: float = 1.0
    rounds: int = 1  # times all steps, each with the whole schedule


def run_of(line: Results) -> Run:
    """Return the run of a line of the file."""
    return Run(**{**{name: line[name] for name in Run._fields}, "momenta": tuple(line["momenta"])})


def known_by(run: Run) -> Run:
    """Return the run without the name of its cell, where that does not decide about the images."""
    return run if run.cell in ASIDE else run._replace(cell="")


class Choice(NamedTuple):
    """What the tuning has chosen."""

    rates: Mapping[tuple[str, str, float], float]  # by regularizer, source and weight
    weights: Mapping[str, tuple[float, ...]]  # the best one on the good source, and ten times that


def spoiling(seeds: Iterable[int], rate: float) -> list[Run]:
    """Return the runs that make the bad source of each seed: memorize shuffled labels."""
    run = Run("spoiling", "plain", "L2-SP", 0, rate, 0, GOOD, labels="shuffled")
    return [run._replace(seed=seed) for seed in seeds]


def tuning(seeds: Iterable[int], smoke: bool = False) -> list[Run]:
    """Return plain runs at every weight and rate, of which a smoke test has the first alone."""
    return [
        Run("tuning", "plain", name, weight, rate, seed, source)
        for source, name, seed in itertools.product(SOURCES, WEIGHTS, seeds)
        for weight in (*([0.0] if name == "L2-SP" else []), *WEIGHTS[name])
        for rate in RATES[: 1 if smoke else None]
    ]


def choose(tuned: Iterable[Results]) -> Choice:
    """Return the rate of each weight with the best mean accuracy, and the best weights.

    A weight is best among those of which ten times as much was tried, too.
    """
    found: dict[tuple[str, str, float], dict[float, list[float]]] = {}
    for r in tuned:
        key = r["regularizer"], r["source"], r["weight"]
        found.setdefault(key, {}).setdefault(r["rate"], []).append(r["accuracy"])
    best = {k: max((np.mean(v), -rate) for rate, v in x.items()) for k, x in found.items()}
    chosen = {}
    for name, tried in WEIGHTS.items():
        i = max(range(len(tried) - 1), key=lambda i: (best[name, GOOD, tried[i]][0], -i))  # noqa: B023
        chosen[name] = tried[i : i + 2]
    return Choice({k: -rate for k, (_, rate) in best.items()}, chosen)


def chosen(choice: Choice, seeds: int, few: int, smoke: bool = False) -> list[Run]:
    """Return all that follows the tuning, the most important first.

    In the headline two sources, two weights of two regularizers and three methods; then what is
    varied one at a time around the largest weights on the bad source. A smoke test needs no other
    program than these, and has one run of 15.
    """
    varied: list[tuple[str, Mapping[str, Any]]] = [
        *(("weight", {"weights": WEIGHTS, "source": source}) for source in SOURCES),
        ("granularity", {"methods": ("per leaf", "per channel")}),
        *(("smoothed", {"methods": BASIC[1:], "smoothing": decay}) for decay in (0.9, 0.99)),
        ("momenta apart", {"methods": BASIC[1:], "momenta": (0.9, 0.9, 0.0)}),
        ("DOT", {"methods": BASIC[:1], "momenta": (0.825, 0.975, 0.0)}),
        *(("interpolation", {"methods": (), "mix": 0.5, "source": source}) for source in SOURCES),
        ("permuted kernels", {"source": "permuted"}),
        ("redrawn labels", {"labels": "redrawn", "source": GOOD, "rounds": 3}),
        ("10 images", {"shots": 10}),
        ("AdamW", {"adam": True, "momenta": (0.0, 0.0, 0.0)}),
        # As strong as with SGD, decoupled L2-SP overshoots: weight times rate is 3, above 2.
        ("AdamW", {"adam": True, "momenta": (0.0, 0.0, 0.0), "weights": TENTH}),
        ("batch 64", {"batch": 64}),
        ("batch 160", {"batch": 160}),
    ]
    strong = {name: (weight,) for name, weight in STRONG.items()}
    one_pass = {"methods": ONE_PASS, "weights": {**strong, "L2-SP": ()}}
    where = [{"source": GOOD}, {}, {"batch": 160}]
    varied += [("one backward pass", {**one_pass, **options}) for options in where]
    first = [compared(choice, "headline", range(seeds), choice.weights, source=s) for s in SOURCES]
    axes = [compared(choice, n, range(few), **{"weights": strong, **o}) for n, o in varied]
    first, others = (list(itertools.chain(*runs)) for runs in (first, axes))
    alike = [r for r in others if r.batch == 16 and usual(r) and r.method in BASIC]
    return first + (alike[::15] if smoke else others)


def usual(run: Run) -> bool:
    """Return whether a run has SGD with momentum, and this batch's gradient as the reference."""
    return not (run.adam or run.smoothing) and run.momenta == MOMENTUM


def compared(
    choice: Choice,
    cell: str,
    seeds: Iterable[int],
    weights: Mapping[str, Sequence[float]],
    methods: Sequence[str] = BASIC,
    **options: Any,
) -> list[Run]:
    """Return fine-tuning and both regularizers, at the rates that were tuned for the source."""
    tuned = BAD if options.get("source", BAD) == BAD else GOOD

    def run(method: str, name: str, weight: float, seed: int) -> Run:
        rate = choice.rates[name, tuned, weight]
        made = Run(cell, method, name, weight, rate, seed, **options)
        if made.adam:  # where a pull is not multiplied by 1 / (1 - momentum): as much, at its rate
            return made._replace(weight=10 * weight * rate / ADAM_RATE, rate=ADAM_RATE)
        # These act on the regularizer alone.
        return made if weight else made._replace(smoothing=0.0, momenta=MOMENTUM)

    grid = [(m, name, w) for m in methods for name in WEIGHTS for w in weights[name]]
    return [run(*at, seed) for at in [("plain", "L2-SP", 0.0), *grid] for seed in seeds]
