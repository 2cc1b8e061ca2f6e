"""The two spellings of the pair in Flax's NNX optimizer."""

import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from optax_dtnh import all_but, dtnh, value_and_grad_pair
from tests.core.helpers import assert_equal

X = jnp.array([[1.0, -2.0, 0.5], [0.3, 1.0, -1.0]])
Y = jnp.array([[1.0], [-1.0]])


def losses(hidden, out):
    return jnp.mean((out - Y) ** 2), jnp.mean((hidden - 1.0) ** 2)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.backbone = nnx.Linear(3, 4, rngs=rngs)
        self.head = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        hidden = jnp.tanh(self.backbone(x))
        return hidden, self.head(hidden)


def gradients(model):
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def fun(params):
        return losses(*nnx.merge(graph, params, rest, copy=True)(X))

    return value_and_grad_pair(fun)(params)[1]


backbone = all_but("head")


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
@pytest.mark.parametrize("mask", [None, backbone], ids=["whole", "backbone"])
def test_an_nnx_optimizer_takes_reg_grads_or_a_pair(graph, mask):
    results = []
    for spell in (tuple, lambda pair: pair, None):
        model = Net(nnx.Rngs(0))
        tx = optax.chain(dtnh(0.5, mask=mask), optax.sgd(0.1, momentum=0.9))
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param, graph=graph)
        for _ in range(3):
            pair = gradients(model)
            if spell:
                optimizer.update(model, spell(pair))
            else:
                optimizer.update(model, pair.loss_grads, reg_grads=pair.reg_grads)
        results.append(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
        conflict = optax.tree.get(optimizer.opt_state, "conflict")
        assert float(conflict[...]) in (0.0, 1.0)
    assert_equal(results[1], results[0])
    assert_equal(results[2], results[0])
