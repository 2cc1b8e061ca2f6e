"""With every optimizer of optax: a regularizer that does not pull changes nothing, to the bit."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax._src import alias

from optax_dtnh import add_l2_sp, dtnh
from tests.core.helpers import assert_equal, cast, random_tree
from tests.core.uses import alone, as_keyword

rng = np.random.default_rng(0)
START, REG, *GRADS = (cast(random_tree({"kernel": (4, 3)}, rng), "float32") for _ in range(7))
NO_REG = optax.tree.zeros_like(START)


def functions(wanted):
    """The public functions of optax with a name and a signature that are wanted."""
    return {
        name: function
        for module in (optax, optax.contrib, alias)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and wanted(function)
    }


def is_optimizer(function):
    parameters = inspect.signature(function).parameters
    return "learning_rate" in parameters or function.__module__ == alias.__name__


NOT_FOR_PLAIN_GRADIENTS = {"dpsgd": "takes one gradient per example, with an axis more"}
NOT_INNER = {
    "scale_by_learning_rate": "points downhill: it follows in the chain",
    "scale_by_backtracking_linesearch": "takes a direction downhill: it follows in the chain",
    "scale_by_zoom_linesearch": "takes a direction downhill: it follows in the chain",
}
OPTIMIZERS = functions(is_optimizer)
DIRECTIONS = functions(lambda function: function.__name__.startswith("scale_by_"))
ARGUMENTS = {
    "lbfgs": {"learning_rate": 0.1, "linesearch": None, "memory_size": 2},
    "noisy_sgd": {"key": 0},
    "scale_by_lbfgs": {"memory_size": 2},
    "scale_by_muon": {"weight_dimension_numbers": {"kernel": optax.contrib.MuonDimensionNumbers()}},
    "scale_by_schedule": {"step_size_fn": lambda step: 1.0 / (1 + step)},
    "schedule_free": {"base_optimizer": optax.sgd(0.1)},
}
# Its noise is rounded as the program around it is vectorized: one operation at a time.
NOT_COMPILED = ["noisy_sgd"]
PROMOTES_RANKS = ["scale_by_distance_over_gradients"]


def loss(params):
    return jnp.sum((params["kernel"] - 1.0) ** 2)


def value(params):
    return {"value": loss(params)}


EXTRA = {
    "momo": value,
    "momo_adam": value,
    "polyak_sgd": value,
    "scale_by_polyak": value,
    "sophia": lambda params: {"obj_fn": loss},
}


def make(name, function):
    arguments = dict(ARGUMENTS.get(name, {}))
    rate = inspect.signature(function).parameters.get("learning_rate")
    if rate is not None and rate.default is inspect.Parameter.empty:
        arguments["learning_rate"] = 0.1
    return optax.with_extra_args_support(function(**arguments))


def one_step(name, tx, update):
    def step(g, r, state, params):
        extra = EXTRA.get(name, lambda params: {})(params)
        updates, state = update(tx, g, r, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return step


def readable(x):
    is_key = jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x


def training(name, tx, update):
    """Return a function from `r` to parameters and states after each step."""
    step = one_step(name, tx, update)
    if name not in NOT_COMPILED:
        # Optimized, XLA joins multiply and add where it sees fit, and the last bits are others.
        step = jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})

    def train(r):
        params, state, after = START, tx.init(START), []
        with jax.numpy_rank_promotion("allow" if name in PROMOTES_RANKS else "raise"):
            for g in GRADS:
                params, state = step(g, r, state, params)
                after.append((params, jax.tree.map(readable, state)))
        return after

    return train


def differ(after, others):
    """Whether two trajectories end apart, measured by the way that one of them went."""
    end, other = after[-1][0]["kernel"], others[-1][0]["kernel"]
    return np.linalg.norm(end - other) > 1e-2 * np.linalg.norm(other - START["kernel"])


def by_name(names, *shown):
    """One case for each of optax's; those that are not shown are for CI."""
    rows = [pytest.param(n, marks=() if n in shown else pytest.mark.slow) for n in sorted(names)]
    return pytest.mark.parametrize("name", rows)


pytestmark = pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated:DeprecationWarning")


@by_name(OPTIMIZERS.keys() - NOT_FOR_PLAIN_GRADIENTS.keys(), "adamw", "lbfgs", "sgd")
def test_a_chained_optimizer_keeps_its_own_trajectory_without_a_pull(name):
    optimizer = make(name, OPTIMIZERS[name])
    own = training(name, optimizer, alone)(NO_REG)
    tx = optax.chain(add_l2_sp(0.0), dtnh(0.5), optimizer)
    train = training(name, tx, as_keyword)
    assert_equal([(params, state) for params, (*_, state) in train(NO_REG)], own)
    assert differ(train(REG), own)


@by_name(DIRECTIONS.keys() - NOT_INNER.keys(), "scale_by_adam", "scale_by_muon")
def test_an_inner_direction_keeps_its_own_trajectory_without_a_pull(name):
    inner = make(name, DIRECTIONS[name])
    own = training(name, inner, alone)(NO_REG)
    train = training(name, dtnh(0.5, inner=inner), as_keyword)
    assert_equal([(params, state.inner) for params, state in train(NO_REG)], own)
    pulled = train(REG)
    assert differ(pulled, own)
    assert_equal(pulled[0][1].inner, own[0][1])  # the pull never enters the buffers


def test_no_optimizer_is_left_out_without_a_reason():
    assert NOT_FOR_PLAIN_GRADIENTS.keys() < OPTIMIZERS.keys()
    assert NOT_INNER.keys() < DIRECTIONS.keys()
    assert {"sgd", "adamw", "lbfgs", "muon", "prodigy", "schedule_free"} < OPTIMIZERS.keys()
    assert {"scale_by_adam", "scale_by_lbfgs", "scale_by_muon"} < DIRECTIONS.keys()
