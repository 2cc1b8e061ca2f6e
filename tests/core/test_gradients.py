"""`value_and_grad_pair`: right values, one trace, one forward pass, nothing run for nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_dtnh import GradientPair, value_and_grad_pair
from tests.core.helpers import assert_close, assert_equal


def network(params, x):
    hidden = jnp.tanh(x @ params["one"])
    return hidden @ params["two"], hidden


def losses(params, x, y=0.0):
    out, hidden = network(params, x)
    return jnp.mean((out - y) ** 2), jnp.mean((hidden - 0.3) ** 2)


def params_and_x():
    rng = np.random.default_rng(0)
    shapes = {"one": (3, 4), "two": (4, 2)}
    params = {k: jnp.float32(rng.standard_normal(s)) for k, s in shapes.items()}
    return params, jnp.float32(rng.standard_normal((5, 3)))


def test_what_the_regularizer_does_not_depend_on_gets_zeros():
    params, x = params_and_x()
    _, pair = value_and_grad_pair(losses)(params, x)
    assert_equal(pair.reg_grads["two"], jnp.zeros((4, 2)))
    _, pair = value_and_grad_pair(lambda p: (jnp.sum(p**2), jnp.float32(1.0)))(jnp.ones(3))
    assert_equal(pair.reg_grads, jnp.zeros(3))


def matmuls(fun, *args):
    return str(jax.make_jaxpr(fun)(*args)).count("dot_general")


def test_one_forward_and_no_backward_through_the_head_for_the_regularizer():
    params, x = params_and_x()

    def basis_cotangents(params):
        values, pull_back = jax.vjp(lambda p: losses(p, x), params)
        one, zero = jnp.ones_like(values[0]), jnp.zeros_like(values[0])
        return pull_back((one, zero)), pull_back((zero, one))

    # forward two; loss backward: head, hidden, one; regularizer backward: one
    assert matmuls(value_and_grad_pair(losses), params, x) == 2 + 3 + 1
    assert matmuls(basis_cotangents, params) == 2 + 3 + 3


def repeated(activation, checkpoint):
    """Three equal layers in a scan; the regularizer sees the first only."""

    def fun(params, x):
        def layer(h, _):
            return activation(h @ params), None

        h, _ = jax.lax.scan(jax.checkpoint(layer) if checkpoint else layer, x, length=3)
        return jnp.mean(h**2), jnp.mean(layer(x, None)[0] ** 2)

    return fun


@jax.custom_vjp
def custom_tanh(v):
    return jnp.tanh(v)


custom_tanh.defvjp(lambda v: (jnp.tanh(v), jnp.tanh(v)), lambda y, t: ((1 - y**2) * t,))


@pytest.mark.parametrize("activation", [jnp.tanh, custom_tanh], ids=["primitive", "custom_vjp"])
@pytest.mark.parametrize("checkpoint", [False, True], ids=["scan", "scan+remat"])
def test_works_through_scan_remat_and_custom_rules(activation, checkpoint):
    fun = repeated(activation, checkpoint)
    params, x = params_and_x()
    square = params["one"][:, :3]
    values, pair = value_and_grad_pair(fun)(square, x)
    assert isinstance(pair, GradientPair)
    assert values == fun(square, x)
    assert_close(pair.loss_grads, jax.grad(lambda p: fun(p, x)[0])(square))
    assert_close(pair.reg_grads, jax.grad(lambda p: fun(p, x)[1])(square))
