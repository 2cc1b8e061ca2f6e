"""What do both gradients cost, and one in most steps? Flops, memory and products of either step.

    python -m benchmarks.cost.one_backward_pass

Claims, for a multilayer perceptron, a ResNet-18 and a ResNet-50 in training mode on images of
96 px, and a decoder whose layers are recomputed in the backward pass, against the gradient of the
weighted sum of loss and feature distance:

- A step that renews takes both gradients, at most 1.67 times the flops: the second backward pass is
  as long as the first, and there is no second forward pass. Where the last map that the regularizer
  sees is `stage2` of a ResNet-18, it takes at most 1.41 times: the second pass begins there.
- Renewed every 2nd, 4th and 8th step, a step takes at most 1.34, 1.18 and 1.10 times the flops on
  average. Each branch is compiled alone, because the compiler counts the larger branch of a
  conditional.
- Between renewals, a step takes at most 1.01 times the flops and 1.02 times the temporary memory.
- In the compiled program of both, the branch between renewals has as many matrix products and
  convolutions as one gradient, and outside of the two branches there is none.

Everything is compiled for CPU, nothing is run. It takes two minutes on two CPU cores.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from benchmarks.cost import networks, report, resnets
from benchmarks.cost.bars import exceeded
from benchmarks.cost.compiled import compiled, step_cost
from benchmarks.cost.many_devices import decoder, hlo, steps
from benchmarks.cost.training import Losses, of_sum
from benchmarks.harness.command import Question, command
from benchmarks.harness.record import Results
from benchmarks.harness.tables import Table
from optax_dtnh import DTNHGradState, value_and_dtnh_grad
from optax_dtnh.models import resnet18, resnet50

WEIGHT, EVERY = 0.1, (2, 4, 8)
EARLY = "ResNet-18, stage2"  # the last map that its regularizer sees
BARS = {"every 2": 1.34, "every 4": 1.18, "every 8": 1.10}
BARS |= {"flops renewing": 1.67, "flops between": 1.01, "memory between": 1.02}
DECODER = decoder.Sizes(4, 256, 4, 688, 1024, batch=4, length=64)

Program = tuple[Losses, tuple[Any, ...]]  # what is differentiated, and abstract arguments


def programs() -> dict[str, Program]:
    """Return the networks by name."""
    return {
        "MLP, batch of 64": of_network(networks.of_mlp(1024, 4, 64, 10)),
        "MLP, batch of 1024": of_network(networks.of_mlp(1024, 4, 1024, 10)),
        "ResNet-18": resnets.program(resnet18, ("stage4",), 8, 96),
        EARLY: resnets.program(resnet18, ("stage2",), 8, 96),
        "ResNet-50": resnets.program(resnet50, ("stage4",), 8, 96),
        "decoder, recomputed": of_decoder(DECODER),
    }


def of_network(network: networks.Network) -> Program:
    """Return the losses of a network in plain jax."""
    params, data = jax.eval_shape(lambda: networks.start(network))
    return networks.losses_of(network), (params, None, *data)


def of_decoder(sizes: decoder.Sizes) -> Program:
    """Return the losses of a decoder."""
    params = decoder.params(sizes, lambda shape, _: jax.ShapeDtypeStruct(shape, jnp.float32))
    tokens = jax.ShapeDtypeStruct((sizes.batch, sizes.length), jnp.int32)
    state = jax.ShapeDtypeStruct((*tokens.shape, sizes.width), jnp.float32)
    return steps.losses_of(sizes), (params, None, tokens, state)


def at(step: int | None, losses: Losses) -> Callable[..., Any]:
    """Return the gradient in this step, or in any; the compiler drops the other branch."""
    evaluate = value_and_dtnh_grad(losses, WEIGHT, every=2, has_aux=True)

    def gradient(count, c, *args):
        state = DTNHGradState(count if step is None else np.int32(step), c, c)
        return evaluate(state, *args)

    return gradient


def row_of(name: str, program: Program) -> dict[str, Any]:
    """Return the row of a network."""
    losses, args = program
    scalars = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    one = compiled(of_sum(losses, WEIGHT), *args)
    ways, alone = {"renewing": at(0, losses), "between": at(1, losses)}, step_cost(one)
    costs = {k: step_cost(compiled(fun, *scalars, *args)) for k, fun in ways.items()}
    ratio = {k: cost.flops / alone.flops for k, cost in costs.items()}
    found = products(compiled(at(None, losses), *scalars, *args).as_text() or "")
    return {
        "network": name,
        **{f"every {k}": (ratio["renewing"] + (k - 1) * ratio["between"]) / k for k in EVERY},
        **{f"flops {k}": ratio[k] for k in ways},
        **{f"memory {k}": costs[k].temporary / alone.temporary for k in ways},
        "products": products(one.as_text() or "")[0],
        "products between": min(found[1:]),
        "products outside": found[0],
    }


def products(text: str) -> list[int]:
    """Return the products outside of the conditional's branches, and in each of them."""
    computations, entry = hlo.computations(text)

    def count(instructions: Iterable[hlo.Instruction]) -> int:
        return sum(
            (i.kind in ("dot", "convolution")) + sum(count(computations[c]) for c in hlo.called(i))
            for i in instructions
        )

    outside = [i for i in computations[entry] if i.kind != "conditional"]
    branches = [c for i in computations[entry] if i.kind == "conditional" for c in hlo.called(i)]
    return [count(outside), *(count(computations[branch]) for branch in branches)]


def measure(options: Namespace) -> Results:  # noqa: ARG001
    """Return the results: one table."""
    jax.config.update("jax_platforms", "cpu")
    with jax.set_mesh(jax.make_mesh((1, 1), ("fsdp", "tensor"), (AxisType.Auto,) * 2)):
        rows = [row_of(name, program) for name, program in programs().items()]
    title = "`value_and_dtnh_grad` relative to the gradient of the weighted sum"
    return report.results([Table(title, rows, [m for row in rows for m in missed(row)])])


def missed(row: Mapping[str, Any]) -> list[str]:
    """Return a message for every claim that does not hold."""
    bars = BARS | {"products between": row["products"], "products outside": 0}
    bars |= {"flops renewing": 1.41} if row["network"] == EARLY else {}
    return exceeded(row["network"], row, bars)


QUESTION = Question("cost.one_backward_pass", __doc__, measure, report.text, report.failures)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
