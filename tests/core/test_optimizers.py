"""With every direction of optax inside: a regularizer that does not pull changes nothing.

What follows in a chain gets exactly the loss's gradient then, see `test_properties`.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import dtnh
from tests.core.helpers import assert_equal, cast, random_tree
from tests.core.uses import alone, as_keyword

rng = np.random.default_rng(0)
START, REG, *GRADS = (cast(random_tree({"kernel": (4, 3)}, rng), "float32") for _ in range(7))
NO_REG = optax.tree.zeros_like(START)
NOT_INNER = {
    "scale_by_learning_rate": "points downhill: it follows in the chain",
    "scale_by_backtracking_linesearch": "takes a direction downhill: it follows in the chain",
    "scale_by_zoom_linesearch": "takes a direction downhill: it follows in the chain",
}
DIRECTIONS = {
    name: function
    for module in (optax, optax.contrib)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__name__.startswith("scale_by_")
}
ARGUMENTS = {
    "scale_by_rprop": {"learning_rate": 0.1},
    "scale_by_madgrad": {"learning_rate": 0.1},
    "scale_by_lbfgs": {"memory_size": 2},
    "scale_by_muon": {"weight_dimension_numbers": {"kernel": optax.contrib.MuonDimensionNumbers()}},
    "scale_by_schedule": {"step_size_fn": lambda step: 1.0 / (1 + step)},
}
PROMOTES_RANKS = ["scale_by_distance_over_gradients"]
TAKES_THE_VALUE = ["scale_by_polyak"]


def training(name, tx, update):
    """Return a function from `r` to parameters and states after each step."""

    def step(g, r, state, params):
        value = {"value": jnp.sum((params["kernel"] - 1.0) ** 2)}
        extra = value if name in TAKES_THE_VALUE else {}
        updates, state = update(tx, g, r, state, params, **extra)
        return optax.apply_updates(params, updates), state

    # Optimized, XLA joins multiply and add where it sees fit, and the last bits are others.
    step = jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})

    def train(r):
        params, state, after = START, tx.init(START), []
        with jax.numpy_rank_promotion("allow" if name in PROMOTES_RANKS else "raise"):
            for g in GRADS:
                params, state = step(g, r, state, params)
                after.append((params, state))
        return after

    return train


def differ(after, others):
    """Whether two trajectories end apart, measured by the way that one of them went."""
    end, other = after[-1][0]["kernel"], others[-1][0]["kernel"]
    return np.linalg.norm(end - other) > 1e-2 * np.linalg.norm(other - START["kernel"])


SHOWN = ["scale_by_adam", "scale_by_muon"]  # the others are for CI
ROWS = [
    pytest.param(name, marks=() if name in SHOWN else pytest.mark.slow)
    for name in sorted(DIRECTIONS.keys() - NOT_INNER.keys())
]


@pytest.mark.parametrize("name", ROWS)
def test_an_inner_direction_keeps_its_own_trajectory_without_a_pull(name):
    inner = optax.with_extra_args_support(DIRECTIONS[name](**ARGUMENTS.get(name, {})))
    own = training(name, inner, alone)(NO_REG)
    train = training(name, dtnh(0.5, inner=inner), as_keyword)
    assert_equal([(params, state.inner) for params, state in train(NO_REG)], own)
    pulled = train(REG)
    assert differ(pulled, own)
    assert_equal(pulled[0][1].inner, own[0][1])  # the pull never enters the buffers


def test_no_direction_is_left_out_without_a_reason():
    assert NOT_INNER.keys() < DIRECTIONS.keys()
    assert {"scale_by_adam", "scale_by_lbfgs", "scale_by_muon"} < DIRECTIONS.keys()
