"""What does KnowDist cost? Flops of a gradient pair on a ResNet-18, relative to one gradient.

    python -m benchmarks.cost.knowdist [--out benchmarks/results/cost.knowdist.json]

Claims, for `optax_dtnh.models.resnet18` in training mode on 8 images of 96 px, the gradients of the
cross-entropy and of `feature_distance` from `value_and_grad_pair`, against one gradient of their
sum:

- at most 1.67 times the flops where the regularizer sees the last map, `stage4`, alone or with
  others: a second backward pass of the same length, no second forward pass;
- at most 1.55 times where the last map that it sees is `stage3`, 1.41 for `stage2` and 1.27 for
  `stage1`: the second backward pass begins there. The control, cotangents of which one is an array
  of zeros, begins at the loss and must miss these bars.

The teacher's forward pass is the same whether gradients are paired or summed and is counted apart:
it ends at the last map as well. The figures are XLA's own, for CPU: everything is compiled, nothing
is run. It takes a minute on two CPU cores. The exit code is 1 if a bar is missed.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.cost.__main__ import text_of
from benchmarks.cost.compiled import flops
from benchmarks.cost.tables import Table
from benchmarks.harness.record import environment
from optax_dtnh import value_and_grad_pair
from optax_dtnh.models import ResNet, resnet18, teacher_view
from optax_dtnh.regularizers import feature_distance

BATCH, IMAGE, CLASSES = 8, 96, 67
BARS = {
    ("stage4",): 1.67,
    ("stage2", "stage4"): 1.67,
    ("stage3",): 1.55,
    ("stage2",): 1.41,
    ("stage1",): 1.27,
}

Maps = tuple[str, ...]
Fun = Callable[..., Any]


class Flops(NamedTuple):
    """Floating-point operations.

    Attributes:
      one: Of one gradient of the sum of loss and regularizer.
      pair: Of both gradients, by `value_and_grad_pair`.
      zero_array: Of both gradients, by a vjp with cotangents (1, 0) and (0, 1).
      teacher: Of the pretrained network up to the last map that the regularizer sees.
    """

    one: float
    pair: float
    zero_array: float
    teacher: float


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and return 1 if a bar is missed."""
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    table = measure(BARS)
    print(f"jax {jax.__version__}, {jax.default_backend()}\n\n{table.title}\n{text_of(table.rows)}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record(table), indent=1) + "\n")
    print("\n" + "\n".join(["Bars missed:", *table.failures] if table.failures else ["All hold."]))
    return 1 if table.failures else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost.knowdist",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every figure as JSON")
    return parser.parse_args(argv)


def measure(bars: Mapping[Maps, float], width: int = 64) -> Table:
    """Count the flops for every choice of maps, on a ResNet-18 of `width`."""
    rows, failures = [], []
    for maps, bar in bars.items():
        row = ratios(count(maps, width))
        name = " and ".join(maps)
        rows.append({"maps": name, **row, "at most": bar})
        failures += missed(name, row, bar, late=maps[-1] == "stage4")
    title = f"flops relative to one gradient: ResNet-18, {BATCH} images of {IMAGE} px"
    return Table(title, rows, failures)


def count(maps: Maps, width: int = 64) -> Flops:
    """Return the flops of the gradients with KnowDist on `maps`."""
    model = nnx.eval_shape(lambda: resnet18(width=width, classes=CLASSES, rngs=nnx.Rngs(0)))
    state = nnx.split(model, nnx.Param, ...)[1:]
    images = jax.ShapeDtypeStruct((BATCH, IMAGE, IMAGE, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    teacher, fun = teacher_of(model, maps), losses_of(model, maps)
    args = (*state, images, labels, jax.eval_shape(teacher, *state, images))
    return Flops(
        one=flops(jax.value_and_grad(summed(fun), has_aux=True), *args),
        pair=flops(value_and_grad_pair(fun, has_aux=True), *args),
        zero_array=flops(zero_array(fun), *args),
        teacher=flops(teacher, *state, images),
    )


def teacher_of(model: ResNet, maps: Maps) -> Fun:
    """Return `f_s(params, rest, images)`, the pretrained network's maps."""
    graph = nnx.graphdef(teacher_view(model))

    def f_s(params, rest, images):
        _, features = nnx.merge(graph, params, rest)(images)
        return {name: features[name] for name in maps}

    return f_s


def losses_of(model: ResNet, maps: Maps) -> Fun:
    """Return `fun(params, rest, images, labels, f_s) -> ((loss, reg), moved statistics)`."""
    graph = nnx.graphdef(model)

    def fun(params, rest, images, labels, f_s):
        copy = nnx.merge(graph, params, rest, copy=True)
        logits, features = copy(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        reg = feature_distance({name: features[name] for name in maps}, f_s)
        return (loss, reg), nnx.state(copy, nnx.BatchStat)

    return fun


def summed(fun: Fun) -> Fun:
    """Return `fun` with the sum of its two values."""

    def total(*args):
        values, aux = fun(*args)
        return sum(values), aux

    return total


def zero_array(fun: Fun) -> Fun:
    """Return what `value_and_grad_pair(fun, has_aux=True)` does, its zero an array: the control."""

    def evaluate(params, *args):
        values, pullback, aux = jax.vjp(lambda params: fun(params, *args), params, has_aux=True)
        one, zero = jnp.ones([]), jnp.zeros([])
        return (values, aux), (pullback((one, zero))[0], pullback((zero, one))[0])

    return evaluate


def ratios(found: Flops) -> dict[str, float]:
    """Return the numbers of a row, all but the first relative to one gradient."""
    return {
        "one gradient, GFLOP": found.one / 1e9,
        "pair": found.pair / found.one,
        "zero array": found.zero_array / found.one,
        "teacher": found.teacher / found.one,
        "pair, both with teacher": (found.pair + found.teacher) / (found.one + found.teacher),
    }


def missed(name: str, row: Mapping[str, float], bar: float, late: bool) -> list[str]:
    """Return a message if the pair misses its bar, or the control does not where it should."""
    pair, control = row["pair"], row["zero array"]
    failures = [] if pair <= bar else [f"{name}: flops {pair:.3f}, at most {bar}"]
    if not late and not control > bar:
        failures.append(f"{name}: the control, flops {control:.3f}, misses no bar")
    return failures


def record(table: Table) -> dict[str, Any]:
    """Return what is written as JSON."""
    return {"environment": environment(), "tables": [table._asdict()]}


if __name__ == "__main__":
    sys.exit(main())
