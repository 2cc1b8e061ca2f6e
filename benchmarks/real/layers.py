"""In which parts of a pretrained network a regularizer conflicts with the loss.

    python -m benchmarks.real.layers

All of EfficientNet-Lite0 is fine-tuned from ImageNet's weights as in `benchmarks.real.whole`: with
L2-SP and with KnowDist at the larger weight of the headline, at the tuned rates, and with DTNH by
one decision for the whole tree. `conflict_report` measures each part of the network in every 10th
step, and for the mean gradients of all 160 images after the last step. It also tells what decisions
per leaf and per element would remove there. Nothing is claimed. It takes 10 minutes on two cores.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import tables
from benchmarks.harness.command import RESULTS, Question, command
from benchmarks.harness.record import Results, numbers
from benchmarks.harness.statistics import mean_interval
from benchmarks.real import cells, material, runs, training
from benchmarks.real.cells import GOOD, Choice, Run
from benchmarks.real.efficientnet import PARTS
from benchmarks.real.material import Material, Scale, lane_of, with_new_head
from benchmarks.real.whole import WHOLE
from optax_dtnh import conflict_report, per_element, per_leaf

DECISIONS = {"whole tree": None, "per leaf": per_leaf, "per element": per_element}
TAKEN = "whole tree"  # the decision that trains
OF = STEPS, MEAN = "one batch, in training", "all images, after training"
SEEDS = range(3)
TOTAL = "all"

Reports = dict[str, dict[str, Any]]  # by decision, then by name; maybe stacked
Row = dict[str, Any]


def measure(options: Namespace) -> Results:  # noqa: ARG001
    """Return a row for each part, by regularizer and number of images."""
    jax.config.update("jax_default_matmul_precision", "highest")
    lines = runs.read(RESULTS / "real.whole.jsonl")
    choice = cells.choose(line for line in lines if line.get("cell") == "tuning")
    return {"rows": measured(material.real(), WHOLE, choice, SEEDS)}


def measured(given: Material, scale: Scale, choice: Choice, seeds: Iterable[int]) -> list[Row]:
    """Fine-tune with every regularizer and seed, and return the rows."""
    rows = []
    for name, weights in choice.weights.items():
        rate = choice.rates[name, GOOD, weights[-1]]
        run, train = Run("", TAKEN, name, weights[-1], rate, 0, GOOD), trainer(name, given, scale)
        found = [train(run._replace(seed=seed)) for seed in seeds]
        for of, by_seed in zip(OF, jax.tree.map(lambda *x: np.stack(x), *found), strict=True):
            settings = {"regularizer": name, "weight": run.weight, "rate": rate, "of": of}
            parts = (PARTS[i] for i in np.unique(given.parts))
            rows += [settings | row_of(part, by_seed) for part in (TOTAL, *parts)]
    return rows


def trainer(
    regularizer: str, given: Material, scale: Scale
) -> Callable[[Run], tuple[Reports, Reports]]:
    """Return what trains, to the reports of the steps and of the mean gradients after them."""

    def observe(g: jax.Array, r: jax.Array, *_: jax.Array) -> Reports:
        pair = given.unravel(g), given.unravel(r)
        return {name: conflict_report(*pair, labels=x, depth=1) for name, x in DECISIONS.items()}

    def trained(run: Run) -> tuple[Reports, Reports]:
        print(f"trains with {regularizer}, seed {run.seed}", flush=True)
        start = with_new_head(backbone, jnp.array(run.seed), len(head["kernel"]))
        found = train(0, lane_of(run, given, scale), start, backbone, given.pixels)
        _, steps, means = jax.device_get(found)
        return steps, jax.tree.map(lambda x: x[-1:], means)

    backbone, head = given.original["backbone"], given.original["head"]
    decide = training.switched([training.coarse(training.COARSE[TAKEN])])
    batches = scale.per_pass(Run._field_defaults["batch"] // scale.shrink)
    plan = training.plan(scale.steps, batches, passes=1)
    train = training.train(given.apply, regularizer, decide, plan, observe, observe=observe)
    train = jax.jit(train)
    return trained


def row_of(part: str, found: Reports) -> Row:
    """Return the numbers of a part by seed, each the mean over what was `found`."""

    def get(quantity: str, decision: str = TAKEN) -> np.ndarray:
        return found[decision][quantity if part == TOTAL else f"{quantity}/{part}"]

    row = {"cosine": get("cosine"), "opposed": get("cosine") < 0}
    row |= {f"conflict, {name}": get("conflict", name) for name in DECISIONS if name != TAKEN}
    row |= {f"removed, {name}": get("removed", name) for name in DECISIONS}
    row |= {"share of r": (get("reg_norm") / found[TAKEN]["reg_norm"]) ** 2}
    return {"part": part, **{k: numbers(np.mean(x, axis=1)) for k, x in row.items()}}


def text(results: Results) -> str:
    """Return the table, with what is measured in hundredths."""

    def shown(value: Any) -> str:
        return str(mean_interval(100 * np.array(value)) if isinstance(value, list) else value)

    rows = [{key: shown(value) for key, value in row.items()} for row in results["rows"]]
    return f"{NOTE}\n\n{tables.markdown(rows)}"


NOTE = f"""\
# Where in a pretrained network does a regularizer conflict with the loss?

All of EfficientNet-Lite0 is fine-tuned from ImageNet's weights, with DTNH by one decision for the
whole tree. The numbers, all in hundredths, are means over {len(SEEDS)} seeds with 95 % t intervals:
`opposed` is the share of the steps in which the two gradients of the part have a negative product,
`conflict` the share of the decisions. `removed` is the share of the part's own `|r|^2`; it may
exceed 100 where parts decide together. `share of r` is the part's share of the whole `|r|^2`."""

QUESTION = Question("real.layers", __doc__, measure, text)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
