"""The tables of the report: each measures one thing and says which bars it misses."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from benchmarks.cost import controls
from benchmarks.cost.bars import (
    FLOPS,
    L2_SP,
    SMALL_LEAVES,
    SMALL_LEAVES_OF_ADAM,
    adam_bars,
    broken,
    nonlinear,
    resnet50_bars,
    storage_is_known,
)
from benchmarks.cost.compiled import Cost, flops, update_cost
from benchmarks.cost.export import PLATFORMS, export_problems, steps
from benchmarks.cost.forms import ADAM_BASELINE, BASELINE, Form, followed_by, rate, sgd
from benchmarks.cost.networks import Network, loss_and_distance
from benchmarks.cost.trees import as_params, resnet50, small_leaves
from optax_dtnh import value_and_grad_pair

COUNTS = (50, 100, 200)
CONTROL_COUNTS = (20, 40, 80)


class Table(NamedTuple):
    """One thing measured.

    Attributes:
      title: What was measured, on what.
      rows: One per line, with the same columns.
      failures: A message for every bar missed, empty where nothing is asserted.
    """

    title: str
    rows: list[dict[str, Any]]
    failures: list[str]


def resnet50_table(forms: Mapping[str, Form]) -> Table:
    """Measure every form on the ResNet-50-shaped tree."""
    params, rows, failures = as_params(resnet50()), [], []
    for name, form in forms.items():
        cost = update_cost(followed_by(form, sgd()), params)
        bars = {} if name in BASELINE else resnet50_bars(name, len(params))
        missed = broken(name, cost, bars)
        held = {
            "bytes at most": bars.get("bytes"),
            "holds": not missed if "bytes" in bars else None,
        }
        rows.append({"form": name, **cost._asdict(), **held})
        failures += missed
    return Table("update of a ResNet-50-shaped tree, 161 leaves", rows, _where_known(failures))


def adam_table(forms: Mapping[str, Form]) -> Table:
    """Measure the forms with Adam on the same tree, and how the metric's program grows."""
    params, rows, failures = as_params(resnet50()), [], []
    for name, form in forms.items():
        cost = update_cost(followed_by(form, rate()), params)
        bars = {} if name in ADAM_BASELINE else adam_bars(name, len(params))
        missed = broken(name, cost, bars)
        held = {"bytes at most": bars.get("bytes"), "holds": not missed if bars else None}
        rows.append({"form": name, **cost._asdict(), **held})
        failures += missed
    metric = "scale_by_adam_dtnh"
    costs = {
        n: update_cost(followed_by(forms[metric], rate()), as_params(small_leaves(n)))
        for n in COUNTS
    }
    failures += broken(metric, costs[max(COUNTS)], SMALL_LEAVES_OF_ADAM)
    failures += nonlinear(metric, {n: cost.instructions for n, cost in costs.items()})
    title = "update of the same tree with Adam (no optimizer after it, the learning rate alone)"
    return Table(title, rows, _where_known(failures))


def small_leaves_table(forms: Mapping[str, Form], counts: Sequence[int] = COUNTS) -> Table:
    """Measure how the program of every form grows with the number of leaves."""
    rows, failures = [], []
    for name, form in forms.items():
        costs = growth(form, counts)
        rows += [{"form": name, "leaves": n, **cost._asdict()} for n, cost in costs.items()]
        failures += broken(name, costs[max(counts)], SMALL_LEAVES)
        failures += nonlinear(name, {n: cost.instructions for n, cost in costs.items()})
    title = "update of small leaves (a bar on instructions, none on bytes and temporary)"
    return Table(title, rows, _where_known(failures))


def growth(form: Form, counts: Sequence[int]) -> dict[int, Cost]:
    """Return the cost of an update of so many small leaves, for every count."""
    return {n: update_cost(followed_by(form, sgd()), as_params(small_leaves(n))) for n in counts}


def controls_table() -> Table:
    """Measure the same update written less carefully: each must miss the bar it is there for."""
    stored = update_cost(followed_by(controls.SHARED_DIFFERENCE, sgd()), as_params(resnet50()))
    grown = growth(controls.SELECTION_LAST, CONTROL_COUNTS)
    counts = {n: cost.instructions for n, cost in grown.items()}
    missed = {
        "one shared w - w_s": broken("ResNet-50", stored, L2_SP),
        "selection last": nonlinear("small leaves", counts),
    }
    rows = [{"control": name, "misses": "; ".join(found)} for name, found in missed.items()]
    failures = [f"control {name!r} misses no bar" for name, found in missed.items() if not found]
    return Table("controls, which should miss a bar", rows, _where_known(failures))


def flops_table(networks: Mapping[str, Network]) -> Table:
    """Count the flops of a gradient pair, relative to one gradient of the sum."""
    rows, failures = [], []
    for name, network in networks.items():
        for place, bar in FLOPS.items():
            ratios = flops_ratios(network, place)
            rows.append({"network": name, "regularizer of the": place, **ratios, "at most": bar})
            if not ratios["pair"] <= bar:
                failures.append(f"{name}, {place}: flops {ratios['pair']:.3f}, at most {bar}")
    title = "flops of value_and_grad_pair relative to one gradient (zero array: a control)"
    return Table(title, rows, failures)


def flops_ratios(network: Network, place: str) -> dict[str, float]:
    """Return the flops of a pair from `value_and_grad_pair`, and from a vjp with a zero array."""
    layers = len(jax.eval_shape(network.apply, network.params, network.x)[1])
    seen = {"last map": layers, "first half": layers // 2}[place]
    fun, args = loss_and_distance(network, seen - 1)
    one = flops(jax.value_and_grad(lambda *args: sum(fun(*args))), *args)
    pairs = {"pair": value_and_grad_pair(fun), "zero array": controls.basis_cotangents(fun)}
    return {name: flops(both, *args) / one for name, both in pairs.items()}


def export_table() -> Table:
    """Lower every public form for every platform."""
    rows = [
        {"form": name, **{p: "; ".join(export_problems(step, args, p)) or True for p in PLATFORMS}}
        for name, (step, args) in steps().items()
    ]
    failures = [
        f"{row['form']} on {p}: {row[p]}" for row in rows for p in PLATFORMS if row[p] is not True
    ]
    return Table("lowers without callbacks, effects and float64", rows, failures)


def _where_known(failures: list[str]) -> list[str]:
    return failures if storage_is_known() else []
