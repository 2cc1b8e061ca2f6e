"""Does the regularizer ever raise the protected loss in the step that is taken? Form by optimizer.

    python -m benchmarks.guarantee [--draws 4000] [--out benchmarks/results]

A draw is a history of six loss and regularizer gradients, parameters and a weight. Two optimizers
walk it: one with the regularizer, and the same optimizer without, which sees the same loss
gradients and parameters and never a regularizer's. So buffers count: what a regularizer's gradient
of an earlier step still does through momentum or Adam's moments is the regularizer's doing. With
`part` the difference of their last steps and `g` the last loss gradient, the regularizer raises the
loss to first order if `first_order_change(part, g) > K eps(dtype) |step| |g|`, `|step|` the sum of
the norms of the two steps.

Claims, asserted at the end (exit code 1):

- Never, in float32 for `weight |r| / |g|` up to 1e5 and in bfloat16 up to 10: `dtnh` before SGD;
  any optimizer as `inner`; `scale_by_adam_dtnh`; two regularizers one inside the other.
- Never against their own average of the gradient, which is what they protect: `reference=ema`
  before SGD, momentum for each gradient apart.
- Everything else raises it in a part of the draws; where a form does not exist, the cell says so.

The gradients scatter around a mean by as much as its length, `g` and `r` independently; the cosine
of the two means is uniform in [-1, 1], and elements differ in size by up to a factor of 100. The
rates belong to these draws; "never" does not, but for what rounding may do: `r` exactly opposed to
`g` cancels, and leaves `eps weight |r| |g|`. Whether SGD still descends there is counted apart.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cost.uses import Update, pair, reg_grads
from benchmarks.harness import record
from optax_dtnh import (
    add_l2_sp,
    dtnh,
    first_order_change,
    plain,
    scale_by_adam_dtnh,
    transform_pair,
)

SHAPES = {"kernel": (8, 6), "bias": (6,), "head": (6, 4)}
STEPS, RATE, DECAY, L2_SP = 6, 0.01, 1e-2, 0.3
K = {"float32": 4, "bfloat16": 1}
RANGES = {  # of weight * |r| / |g|
    "float32": {"ordinary": (0.1, 10.0), "large": (10.0, 1e5), "beyond": (1e5, 1e8)},
    "bfloat16": {"ordinary": (0.1, 10.0), "beyond": (10.0, 1e3)},
}

# Directions, uphill: what an optimizer is made of before its decay and its rate.
DIRECTIONS = {
    "sgd": optax.identity(),
    "momentum": optax.trace(0.9),
    "nesterov": optax.trace(0.9, nesterov=True),
    "adam": optax.scale_by_adam(),
    "adamw": optax.scale_by_adam(),
    "lion": optax.scale_by_lion(),
    "adafactor": optax.chain(optax.adafactor(1.0), optax.scale(-1.0)),
    "muon": optax.chain(optax.contrib.muon(1.0), optax.scale(-1.0)),
}


class Form(NamedTuple):
    """One way to add the regularizer.

    Attributes:
      make: `make(weight, optimizer's name)` gives the whole chain, None where there is none.
      promises: The optimizers for which the step never opposes what is protected.
      reference: What is protected, a transformation of the loss's gradient; None is that itself.
      update: How the chain is given the two gradients.
    """

    make: Callable[[Any, str], optax.GradientTransformation | None]
    promises: Sequence[str] = ()
    reference: Callable[[str], optax.GradientTransformation] | None = None
    update: Update = pair


def followed(first: optax.GradientTransformation, name: str) -> optax.GradientTransformation:
    """Return `first`, then the optimizer's decay if it has one, then the rate."""
    decay = optax.add_decayed_weights(DECAY) if name in ("adamw", "lion") else optax.identity()
    return optax.chain(first, decay, optax.scale_by_learning_rate(RATE))


def alone(name: str) -> optax.GradientTransformation:
    """Return the optimizer without a regularizer."""
    return followed(DIRECTIONS[name], name)


def ema(name: str) -> optax.GradientTransformation:  # noqa: ARG001
    """Return the smoothed reference."""
    return optax.ema(0.99, accumulator_dtype=jnp.float32)


def apart(weight: Any, name: str) -> optax.GradientTransformation | None:
    """Return momentum for each gradient by itself, where the optimizer is momentum."""
    if name not in ("momentum", "nesterov"):
        return None
    each = DIRECTIONS[name]
    return followed(optax.chain(transform_pair(each, each), dtnh(weight)), name)


def in_the_metric(weight: Any, name: str) -> optax.GradientTransformation | None:
    """Return Adam with the regularizer in its metric, where the optimizer is made of Adam."""
    return followed(scale_by_adam_dtnh(weight), name) if name in ("adam", "adamw") else None


def around(weight: Any, name: str) -> optax.GradientTransformation | None:
    """Return `dtnh` around the direction; around none it is the form before the optimizer."""
    return None if name == "sgd" else followed(dtnh(weight, inner=DIRECTIONS[name]), name)


def nested(weight: Any, name: str) -> optax.GradientTransformation:
    """Return L2-SP around another regularizer around the direction."""
    return followed(add_l2_sp(L2_SP, inner=dtnh(weight, inner=DIRECTIONS[name])), name)


FORMS = {
    "plain": Form(lambda w, name: optax.chain(dtnh(w, rule=plain), alone(name))),
    "`dtnh` before it": Form(lambda w, name: optax.chain(dtnh(w), alone(name)), ["sgd"]),
    "`reference=ema`, before it": Form(
        lambda w, name: optax.chain(dtnh(w, reference=ema(name)), alone(name)), ["sgd"], ema
    ),
    "momentum for each apart": Form(apart, ["momentum", "nesterov"], DIRECTIONS.__getitem__),
    "as `inner`": Form(around, [*DIRECTIONS]),
    "`scale_by_adam_dtnh`": Form(in_the_metric, ["adam", "adamw"]),
    "two regularizers, nested": Form(nested, [*DIRECTIONS], update=reg_grads),
}


class Draws(NamedTuple):
    """Many histories: trees with a leading axis of draws, gradients with one of steps after it."""

    g: Any
    r: Any
    start: Any
    params: Any
    ratio: np.ndarray


def draws(n: int, low: float, high: float, dtype: str = "float32", opposed: bool = False) -> Draws:
    """Return `n` histories with `weight |r| / |g|` log-uniform between `low` and `high`.

    With `opposed`, the last gradient of the regularizer is opposed to the loss's.
    """
    rng = np.random.default_rng(0)
    size = sum(int(np.prod(shape)) for shape in SHAPES.values())

    def unit(*shape: int) -> np.ndarray:
        x = rng.standard_normal((*shape, size)) * 10 ** rng.uniform(-1, 1, size)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    mean, sideways, cos = unit(n, 1), unit(n, 1), rng.uniform(-1, 1, (n, 1, 1))
    sideways -= np.sum(sideways * mean, axis=-1, keepdims=True) * mean
    sideways /= np.linalg.norm(sideways, axis=-1, keepdims=True)
    g = mean + unit(n, STEPS)
    r = cos * mean + np.sqrt(1 - cos**2) * sideways + unit(n, STEPS)
    if opposed:
        r[:, -1] = -g[:, -1]
    start, moved = rng.standard_normal((2, n, size))
    ratio = np.exp(rng.uniform(np.log(low), np.log(high), n))
    params = start + 0.1 * moved
    return Draws(*(_tree(x, dtype) for x in (g, r, start, params)), ratio=ratio)


def _tree(x: np.ndarray, dtype: str) -> Any:
    ends = np.cumsum([np.prod(shape) for shape in SHAPES.values()])[:-1]
    parts = zip(SHAPES.items(), np.split(x, ends, axis=-1), strict=True)
    return {k: jnp.asarray(v.reshape(*x.shape[:-1], *shape), dtype) for (k, shape), v in parts}


class Measured(NamedTuple):
    """Per draw: how far the regularizer's part raises a loss, and the norms that it is seen by.

    Attributes:
      rise: `first_order_change` of the part, by the last gradient and by what is protected.
      size: `|step| |g|`, for both.
      step: `first_order_change` of the whole step by the last gradient.
    """

    rise: np.ndarray
    size: np.ndarray
    step: np.ndarray


def measure(form_name: str, name: str, histories: Draws) -> Measured | None:
    """Return what the last step of every history does, None where the form does not exist."""
    if FORMS[form_name].make(1.0, name) is None:
        return None
    return Measured(*map(np.asarray, _compiled(form_name, name)(histories)))


@functools.cache
def _compiled(form_name: str, name: str) -> Callable[[Draws], Any]:
    form = FORMS[form_name]
    reference = form.reference(name) if form.reference else optax.identity()
    own = alone(name)

    def one(history: Draws) -> Any:
        last_g, last_r = (jax.tree.map(lambda x: x[-1], t) for t in (history.g, history.r))
        weight = history.ratio * optax.tree.norm(last_g) / optax.tree.norm(last_r)
        pulled = _made(form, weight, name)

        def step(states, gradients):
            g, r = gradients
            with_r, a = form.update(pulled, g, r, states[0], history.params)
            without, b = own.update(g, states[1], history.params)
            m, c = reference.update(g, states[2], history.params)
            return (a, b, c), (with_r, without, m)

        states = tuple(tx.init(history.start) for tx in (pulled, own, reference))
        _, outs = jax.lax.scan(step, states, (history.g, history.r))
        with_r, without, m = jax.tree.map(lambda x: x[-1].astype(jnp.float32), outs)
        part = jax.tree.map(jnp.subtract, with_r, without)
        g = jax.tree.map(lambda x: x.astype(jnp.float32), last_g)
        norm = optax.tree.norm(with_r) + optax.tree.norm(without)
        rise = first_order_change(part, g), first_order_change(part, m)
        size = norm * optax.tree.norm(g), norm * optax.tree.norm(m)
        return rise, size, first_order_change(with_r, g)

    return jax.jit(jax.vmap(one))


def _made(form: Form, weight: Any, name: str) -> optax.GradientTransformation:
    made = form.make(weight, name)
    assert made is not None
    return made


def excess(measured: Measured, dtype: str) -> np.ndarray:
    """Return the rises in units of what rounding may do: above 1, the loss is raised."""
    return measured.rise / (K[dtype] * float(jnp.finfo(dtype).eps) * measured.size)


def rows(n: int) -> Iterator[dict[str, Any]]:
    """Yield one record per form, optimizer, dtype and range of weights."""
    for dtype, ranges in RANGES.items():
        for between, (low, high) in ranges.items():
            histories = draws(n, low, high, dtype)
            for form_name, form in FORMS.items():
                for name in DIRECTIONS:
                    measured = measure(form_name, name, histories)
                    row = {"form": form_name, "optimizer": name, "dtype": dtype, "range": between}
                    if measured is None:
                        yield row | {"exists": False}
                        continue
                    by_batch, by_own = excess(measured, dtype)
                    yield row | {
                        "exists": True,
                        "promises": name in form.promises,
                        "own_reference": form.reference is not None,
                        "raised": float(np.mean(by_batch > 1)),
                        "raised_own": float(np.mean(by_own > 1)),
                        "worst": float(f"{np.max(by_own if form.reference else by_batch):.3g}"),
                    }


def opposed_rows(n: int) -> Iterator[dict[str, Any]]:
    """Yield how often `dtnh` and SGD do not descend where `r` is exactly opposed to `g`."""
    for dtype, edges in (("float32", (1e2, 1e4, 1e5, 1e6, 1e8)), ("bfloat16", (1, 10, 100, 1e4))):
        for ratio in edges:
            measured = measure(
                "`dtnh` before it", "sgd", draws(n, ratio, ratio, dtype, opposed=True)
            )
            assert measured is not None
            share = float(np.mean(measured.step >= 0))
            yield {"dtype": dtype, "ratio": float(ratio), "not_descending": share}


def failures(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return a message for every promise that was not kept within its range."""
    return [
        f"{row['form']} x {row['optimizer']}, {row['dtype']}, {row['range']}: {row['worst']}"
        for row in found
        if row["exists"] and row["promises"] and row["range"] != "beyond" and row["worst"] > 1
    ]


def cell(row: dict[str, Any]) -> str:
    """Return what the table says of one form and optimizer."""
    if not row["exists"]:
        return "–"
    rate = f"{100 * row['raised']:.0f} %" if row["raised"] else "0 %"
    if row["promises"]:
        return f"{rate}; own: never" if row["own_reference"] else "never"
    return rate


def markdown(results: dict[str, Any]) -> str:
    """Return the table of float32 at ordinary weights."""
    found = {
        (row["form"], row["optimizer"]): row
        for row in results["rows"]
        if (row["dtype"], row["range"]) == ("float32", "ordinary")
    }
    lines = [f"| | {' | '.join(DIRECTIONS)} |", f"|---|{'---|' * len(DIRECTIONS)}"]
    for form in FORMS:
        cells = [cell(found[form, name]) for name in DIRECTIONS]
        lines.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write and print; return 1 if a promise is not kept."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guarantee",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--draws", type=int, default=4000, help="histories per cell")
    parser.add_argument("--out", type=Path, default=Path("out/guarantee"), metavar="FOLDER")
    options = parser.parse_args(argv)
    results = {
        "environment": record.environment(),
        "draws": options.draws,
        "k": K,
        "ranges": RANGES,
        "rows": list(rows(options.draws)),
        "opposed": list(opposed_rows(options.draws)),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    record.write(options.out / "guarantee.json", results)
    (options.out / "guarantee.md").write_text(markdown(results) + "\n")
    print(markdown(results))
    missed = failures(results["rows"])
    print("\n".join(["", "Not kept:", *missed] if missed else ["", "Every promise was kept."]))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
