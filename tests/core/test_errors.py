"""The mistakes that newcomers make, and the sentence that each is answered with."""

import ast
import functools
import inspect
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from flax.core import freeze
from flax.training.train_state import TrainState

import optax_dtnh
from optax_dtnh import (
    GradientPair,
    add_l2_sp,
    apply_rule,
    cosine_similarity,
    dtnh,
    first_order_change,
    scale_by_adam_dtnh,
    transform_pair,
    truncate,
    value_and_grad_pair,
)
from optax_dtnh.regularizers import (
    attention_feature_distance,
    batch_spectral_shrinkage,
    channel_attention,
    distillation,
    feature_distance,
    l2_sp,
)

PARAMS = {"body": {"w": jnp.ones((3, 4)), "b": jnp.zeros(4)}, "head": jnp.ones((4, 2))}
G = jax.tree.map(lambda x: x + 1.0, PARAMS)
R = jax.tree.map(lambda x: -x - 0.5, PARAMS)
BODY, MASK, TWO = {"body": R["body"]}, {"body": True, "head": False}, (jnp.ones(2), jnp.ones(2))
MIXED = {"w": jnp.ones(2), "n": jnp.arange(2)}
LOSS, X = jnp.float32(0.5), jnp.ones((4, 3))
VALUES_AND_PAIR = ((LOSS, LOSS), GradientPair(G, R))


def update(tx, updates, params=PARAMS, start=PARAMS, **extra):
    return tx.update(updates, tx.init(start), params, **extra)


def both(updates=G, reg_grads=R, weight=0.1, **options):
    return update(dtnh(weight, **options), updates, reg_grads=reg_grads)


def both_in_metric(updates=G, reg_grads=R, **options):
    return update(scale_by_adam_dtnh(0.1, **options), updates, reg_grads=reg_grads)


def anchored(updates=G, params=PARAMS, start=PARAMS, **options):
    return update(add_l2_sp(0.1, **options), updates, params, start)


@functools.cache
def model():
    return eqx.nn.MLP(2, 1, 2, 1, key=jax.random.key(0))


class Net(nnx.Module):
    def __init__(self):
        self.body = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        self.drop = nnx.Dropout(0.1, rngs=nnx.Rngs(0))


def nnx_update(pair, **options):
    net = Net()
    grads = jax.tree.map(jnp.ones_like, nnx.state(net, nnx.Param))
    nnx.Optimizer(net, dtnh(0.1, **options), wrt=nnx.Param).update(net, *pair(grads))


def linen_update(grads):
    TrainState.create(apply_fn=None, params=PARAMS, tx=dtnh(0.1)).apply_gradients(grads=grads)


def fun_returning(values, **options):
    return value_and_grad_pair(lambda params: values(params["head"].sum()), **options)(PARAMS)


MISSING = "`reg_grads` is missing, got"
EITHER = (
    "Call `tx.update(GradientPair(loss_grads, reg_grads), state, params)` or "
    "`tx.update(loss_grads, state, params, reg_grads=reg_grads)`. A second `dtnh` finds none: sum "
    "what depends on the batch into one regularizer."
)
REG_GRADS = "`reg_grads` should have the tree structure of `loss_grads`, got"
TAKE_BOTH = "Take both with `value_and_grad_pair`: zeros fill a head, `mask` keeps it out."
LOSS_GRADS = "`loss_grads` should have the tree structure of `params`, got"
UPDATES = "`updates` should have the tree structure of `params`, got"
THESE_PARAMS = "Give the gradient with respect to these very `params`."
ANCHOR = "`params` should have the tree structure of `anchor`, got"
THIS_START = "Call `init` with these parameters and this `mask`, or restore the state saved then."
CONVERT = "Give both the same keys and containers (`flax.core.unfreeze`, `nnx.to_pure_dict`)."
SPLIT = "Split other leaves off first, as with `nnx.split` or `eqx.partition`."
WEIGHT = "`weight` should be a number or an optax schedule, got"
A_FLOAT = "Pass a float such as 0.1, or a function from the step count to one."
NEGATIVE = "`weight` should be finite and non-negative, got"
NOT_NEGATIVE = (
    "Pass a number >= 0: a negative one would push away from what the regularizer asks for."
)
BOOLEANS = "`mask` should hold booleans, got"
TRUE_FOR = "Give True for what is regularized, False for what is left out."
PREFIX = "should have the structure of the updates or a prefix of it, got"
PER_LEAF = (
    "Give one entry per leaf or subtree, or a function that does, as with `jax.tree.map_with_path`."
)

BOUND = "`bound` should be a finite number > 0, got"
LESS_IS_CAPPED = "Pass one such as 10.0: the larger, the less is capped."

# What is called -> the mistake -> how it is made, and the answer; `...` there stands for anything.
MISTAKES = {
    dtnh: {
        # the pair
        "no regularizer": (
            lambda: both(reg_grads=None),
            ValueError,
            f"{MISSING} a dict as updates, shaped like `params`. {EITHER}",
        ),
        "no regularizer, under jit": (
            lambda: jax.jit(lambda g: update(dtnh(0.1), g))(G["head"]),
            ValueError,
            f"{MISSING} one array as updates, not a pair. {EITHER}",
        ),
        "no regularizer, in a TrainState": (
            lambda: linen_update(G),
            ValueError,
            f"{MISSING} a dict as updates, shaped like `params`. {EITHER}",
        ),
        "no regularizer, in an nnx.Optimizer": (
            lambda: nnx_update(lambda g: [g]),
            ValueError,
            f"{MISSING} a State as updates, shaped like `params`. {EITHER}",
        ),
        "a misspelled extra argument": (
            lambda: update(dtnh(0.1), G, reg_grad=R),
            ValueError,
            f"{MISSING} a dict as updates, shaped like `params`. {EITHER}",
        ),
        "a second dtnh in the chain": (
            lambda: update(optax.chain(dtnh(0.1), dtnh(0.1)), (G, R), None),
            ValueError,
            f"{MISSING} a dict as updates, not a pair. {EITHER}",
        ),
        "a list as pair": (
            lambda: both([G, R], None),
            ValueError,
            f"{MISSING} a list of 2 as updates, not a pair. {EITHER}",
        ),
        "a dict of other names as pair": (
            lambda: both({"loss": G, "reg": R}, None),
            ValueError,
            f"{MISSING} a dict as updates, not a pair. {EITHER}",
        ),
        "three gradients": (
            lambda: both((G, R, R), None),
            ValueError,
            f"{MISSING} a tuple of 3 as updates, not a pair. {EITHER}",
        ),
        "parameters that are a tuple, without a regularizer": (
            lambda: update(dtnh(0.1), TWO, TWO, TWO),
            ValueError,
            f"{MISSING} a tuple of 2 as updates, shaped like `params`. {EITHER}",
        ),
        "the whole return of value_and_grad_pair": (
            lambda: both(VALUES_AND_PAIR, None),
            ValueError,
            "`updates` should be the pair of gradients alone, got a tuple of 2 that ends in it. "
            "Unpack `values, pair = value_and_grad_pair(losses)(params)`, pass `pair`.",
        ),
        "both spellings": (
            lambda: both((G, R), R),
            ValueError,
            "`reg_grads` should be given once, got a pair as updates and `reg_grads=` as well. "
            "Pass the pair alone, or the loss gradient as updates with `reg_grads=`.",
        ),
        # trees that differ
        "no head": (
            lambda: both(G, BODY),
            ValueError,
            f"{REG_GRADS} no entry for ['head']. {TAKE_BOTH}",
        ),
        "no head, though it is masked": (
            lambda: both((G, BODY), None, mask=MASK),
            ValueError,
            f"{REG_GRADS} no entry for ['head']. {TAKE_BOTH}",
        ),
        "a subtree": (
            lambda: both(G, R["body"]),
            ValueError,
            f"{REG_GRADS} no entry for ['body']['b'], ['body']['w'], more and an entry for ['b'], "
            f"['w']. {TAKE_BOTH}",
        ),
        "no member": (
            lambda: both((G, None), None),
            ValueError,
            f"{REG_GRADS} None in place of a dict. {TAKE_BOTH}",
        ),
        "the value of the regularizer": (
            lambda: both(G, LOSS),
            ValueError,
            f"{REG_GRADS} one array in place of a dict. {TAKE_BOTH}",
        ),
        "the regularizer itself": (
            lambda: both(G, lambda params: 0.0),
            ValueError,
            f"{REG_GRADS} a function in place of a dict. {TAKE_BOTH}",
        ),
        "a pair as reg_grads": (
            lambda: both(G, GradientPair(G, R)),
            ValueError,
            f"{REG_GRADS} a GradientPair of 2 with such a tree inside. Pass that member alone.",
        ),
        "a FrozenDict as reg_grads": (
            lambda: both(G, freeze(R)),
            ValueError,
            f"{REG_GRADS} a FrozenDict in place of a dict. {TAKE_BOTH}",
        ),
        "lists and tuples inside": (
            lambda: update(dtnh(0.1), ({"a": [LOSS]}, {"a": (LOSS,)}), None),
            ValueError,
            f"{REG_GRADS} other containers for the same keys. {TAKE_BOTH}",
        ),
        "None among the leaves": (
            lambda: update(dtnh(0.1), (G, G | {"head": None}), None),
            ValueError,
            f"{REG_GRADS} no entry for ['head']. {TAKE_BOTH}",
        ),
        "another shape": (
            lambda: both(G, R | {"head": jnp.ones((2, 4))}),
            ValueError,
            "`reg_grads['head']` should have shape (4, 2) as in `loss_grads`, got (2, 4). Nothing "
            "is broadcast: pass equal shapes.",
        ),
        "optax.masked as it is by default": (
            lambda: update(optax.masked(dtnh(0.1), MASK), G, reg_grads=R),
            ValueError,
            f"{REG_GRADS} an entry for ['head']. `optax.masked` and `partition` need "
            "`mask_compatible_extra_args=True`.",
        ),
        "FrozenDict parameters": (
            lambda: update(dtnh(0.1), (G, R), freeze(PARAMS)),
            ValueError,
            f"{LOSS_GRADS} a dict in place of a FrozenDict. {THESE_PARAMS}",
        ),
        "parameters without the head": (
            lambda: update(dtnh(0.1), (G, R), {"body": PARAMS["body"]}),
            ValueError,
            f"{LOSS_GRADS} an entry for ['head']. {THESE_PARAMS}",
        ),
        "an Equinox module that is not filtered": (
            lambda: update(dtnh(0.1), (eqx.filter(model(), eqx.is_array),) * 2, model(), model()),
            ValueError,
            f"{LOSS_GRADS} no entry for .activation, .final_activation. {THESE_PARAMS}",
        ),
        "value and gradient": (
            lambda: both((LOSS, G), None),
            ValueError,
            f"{LOSS_GRADS} one array in place of a dict. {THESE_PARAMS}",
        ),
        "value and gradient, with reg_grads": (
            lambda: both((LOSS, G), R),
            ValueError,
            f"{LOSS_GRADS} a tuple of 2 with such a tree inside. Pass that member alone.",
        ),
        "integers": (
            lambda: update(dtnh(0.1), (MIXED, MIXED), MIXED, MIXED),
            TypeError,
            "`loss_grads['n']` should be real floating point, got int32. Leave this leaf out ...",
        ),
        "what jax.grad gives for integers": (
            lambda: update(
                dtnh(0.1), (jax.grad(lambda p: p["w"].sum(), allow_int=True)(MIXED),) * 2, None
            ),
            TypeError,
            "`loss_grads['n']` should be real floating point, got [('float0', 'V')]. Leave ...",
        ),
        "integers in the regularizer's gradient": (
            lambda: both(G, R | {"head": jnp.ones((4, 2), int)}),
            TypeError,
            "`reg_grads['head']` should be real floating point, got int32. Leave this leaf out ...",
        ),
        "complex numbers": (
            lambda: both(G, R | {"head": jnp.ones((4, 2), complex)}),
            TypeError,
            "`reg_grads['head']` should be real floating point, got complex64. Leave ....",
        ),
        # the options
        "a weight in quotes": (lambda: dtnh("0.1"), TypeError, f"{WEIGHT} '0.1'. {A_FLOAT}"),
        "no weight": (lambda: dtnh(None), TypeError, f"{WEIGHT} None. {A_FLOAT}"),
        "a weight of shape (1,)": (
            lambda: dtnh(jnp.ones(1)),
            TypeError,
            f"{WEIGHT} Array([1.], dtype=float32). {A_FLOAT}",
        ),
        "an optimizer as weight": (
            lambda: dtnh(optax.sgd(0.1)),
            TypeError,
            f"{WEIGHT} GradientTransformationExtraArgs(init=.... {A_FLOAT}",
        ),
        "a schedule of vectors": (
            lambda: both(weight=lambda step: jnp.ones(2)),
            TypeError,
            f"{WEIGHT} Array([1., 1.], dtype=float32). {A_FLOAT}",
        ),
        "a traced vector as weight": (
            lambda: jax.jit(lambda weight: both(weight=weight))(jnp.ones(2)),
            TypeError,
            f"{WEIGHT} ...float32[2].... {A_FLOAT}",
        ),
        "a factory of schedules": (
            lambda: both(weight=optax.constant_schedule),
            TypeError,
            f"{WEIGHT} <function constant_schedule.<locals>.... {A_FLOAT}",
        ),
        "a negative weight": (lambda: dtnh(-0.1), ValueError, f"{NEGATIVE} -0.1. {NOT_NEGATIVE}"),
        "NaN as weight": (
            lambda: dtnh(float("nan")),
            ValueError,
            f"{NEGATIVE} nan. {NOT_NEGATIVE}",
        ),
        "an optimizer that is not called": (
            lambda: dtnh(0.1, inner=optax.adam),
            TypeError,
            "`inner` should be an optax transformation, got <function adam at .... Pass what its "
            "factory returns, as in `inner=optax.trace(0.9)`, or leave it out.",
        ),
        "no reference": (
            lambda: dtnh(0.1, reference=None),
            TypeError,
            "`reference` should be an optax transformation, got None. Pass what its factory "
            "returns, as in `reference=optax.trace(0.9)`, or leave it out.",
        ),
        "a rule in quotes": (
            lambda: dtnh(0.1, rule="drop"),
            TypeError,
            "`rule` should be a function such as `optax_dtnh.truncate`, got 'drop'. Import the "
            "rule and pass it without calling it.",
        ),
        "a rule that is called": (
            lambda: dtnh(0.1, rule=truncate(LOSS, LOSS, LOSS)),
            TypeError,
            "`rule` should be a function such as `optax_dtnh.truncate`, got (1.0, ...). Import "
            "the rule and pass it without calling it.",
        ),
        "one answer for every leaf": (
            lambda: both(mask=True),
            TypeError,
            "`mask` should be a tree or a function, got True for every leaf. Leave it out, or name "
            "it in the `static_args` of `optax.inject_hyperparams`, which calls any other function "
            "with the step count.",
        ),
        "a mask of strings": (
            lambda: both(mask={"body": "yes", "head": "no"}),
            TypeError,
            f"{BOOLEANS} 'yes'. {TRUE_FOR}",
        ),
        "a name as mask": (
            lambda: dtnh(0.1, mask="body"),
            TypeError,
            f"{BOOLEANS} 'body'. {TRUE_FOR}",
        ),
        "a mask of 0 and 1": (
            lambda: dtnh(0.1, mask={"body": 1, "head": 0}),
            TypeError,
            f"{BOOLEANS} 1. {TRUE_FOR}",
        ),
        "a mask of arrays": (
            lambda: both(mask=lambda tree: jax.tree.map(lambda x: x > 1, tree)),
            TypeError,
            f"{BOOLEANS} Array([False, False, False, False], dtype=bool). {TRUE_FOR}",
        ),
        "a mask of functions": (
            lambda: dtnh(0.1, mask={"body": jnp.ones_like}),
            TypeError,
            f"{BOOLEANS} <function ones_like at .... {TRUE_FOR}",
        ),
        "a mask that is False": (
            lambda: dtnh(0.1, mask=dict.fromkeys(range(99), False)),
            ValueError,
            "`mask` should be True for at least one leaf, got {0: False, 1: False, .... "
            f"{TRUE_FOR}",
        ),
        "a misspelled mask": (
            lambda: both(mask={"body": True, "tail": False}),
            ValueError,
            f"`mask` {PREFIX} no entry for ['head'] and an entry for ['tail']. {PER_LEAF}",
        ),
        "a mask for half": (
            lambda: both(mask={"body": True}),
            ValueError,
            f"`mask` {PREFIX} no entry for ['head']. {PER_LEAF}",
        ),
        "a mask without a return": (
            lambda: both(mask=lambda tree: None),
            ValueError,
            f"`mask` {PREFIX} None for a dict. {PER_LEAF}",
        ),
        "a dict as mask in NNX": (
            lambda: nnx_update(lambda g: [(g, g)], mask={"body": True}),
            ValueError,
            f"`mask` {PREFIX} a dict for a State. {PER_LEAF}",
        ),
        "labels for half": (
            lambda: both(labels={"body": "a", "tail": "b"}),
            ValueError,
            f"`labels` {PREFIX} no entry for ['head'] and an entry for ['tail']. {PER_LEAF}",
        ),
        "the parameters as labels": (
            lambda: both(labels={"body": jnp.zeros([]), "head": 0}),
            TypeError,
            "`labels` should hold strings, integers or other hashable values, got Array(0., "
            "dtype=float32.... Give equal labels to the leaves that share one decision.",
        ),
    },
    scale_by_adam_dtnh: {
        **{
            f"bound {bound!r:.20}": (
                functools.partial(scale_by_adam_dtnh, 0.1, bound=bound),
                ValueError,
                f"{BOUND} {bound!r:.60}. {LESS_IS_CAPPED}",
            )
            for bound in (0, -1.0, float("nan"), float("inf"), "10", None, True, (1.0, 2.0))
        },
        "a traced vector as bound": (
            lambda: jax.jit(lambda b: both_in_metric(bound=b))(jnp.ones(2)),
            ValueError,
            f"{BOUND} ...float32[2].... {LESS_IS_CAPPED}",
        ),
        "no weight": (lambda: scale_by_adam_dtnh(None), TypeError, f"{WEIGHT} None. {A_FLOAT}"),
        "a negative weight": (
            lambda: scale_by_adam_dtnh(-0.1),
            ValueError,
            f"{NEGATIVE} -0.1. {NOT_NEGATIVE}",
        ),
        "no regularizer": (
            lambda: update(scale_by_adam_dtnh(0.1), G),
            ValueError,
            f"{MISSING} a dict as updates, shaped like `params`. {EITHER}",
        ),
        "both spellings": (
            lambda: both_in_metric((G, R)),
            ValueError,
            "`reg_grads` should be given once, got a pair as updates and `reg_grads=` as well. "
            "Pass the pair alone, or the loss gradient as updates with `reg_grads=`.",
        ),
        "no head": (
            lambda: both_in_metric(reg_grads=BODY),
            ValueError,
            f"{REG_GRADS} no entry for ['head']. {TAKE_BOTH}",
        ),
        "integers": (
            lambda: update(scale_by_adam_dtnh(0.1), (MIXED, MIXED), None, {"w": 1.0, "n": 1.0}),
            TypeError,
            "`loss_grads['n']` should be real floating point, got int32. Leave this leaf out ...",
        ),
        "a misspelled mask": (
            lambda: both_in_metric(mask={"body": True, "tail": False}),
            ValueError,
            f"`mask` {PREFIX} no entry for ['head'] and an entry for ['tail']. {PER_LEAF}",
        ),
        "a rule in quotes": (
            lambda: scale_by_adam_dtnh(0.1, rule="drop"),
            TypeError,
            "`rule` should be a function such as `optax_dtnh.truncate`, got 'drop'. Import the "
            "rule and pass it without calling it.",
        ),
    },
    add_l2_sp: {
        "no parameters": (
            lambda: anchored(params=None),
            ValueError,
            "`params` should be the current parameters, got None. `add_l2_sp` needs them: call "
            "`tx.update(grads, state, params)`.",
        ),
        "parameters of another shape than at init": (
            lambda: anchored(start=PARAMS | {"head": jnp.ones((4, 3))}),
            ValueError,
            "`params['head']` should have shape (4, 3) as in `anchor`, got (4, 2). Nothing is "
            "broadcast: pass equal shapes.",
        ),
        "a pair": (
            lambda: anchored((G, R)),
            ValueError,
            "`updates` should be the gradient of the loss, got a pair. `add_l2_sp` forms its own "
            "regularizer's; for an `inner` that takes one, pass `reg_grads=`.",
        ),
        "value and gradient": (
            lambda: anchored((LOSS, G)),
            ValueError,
            f"{UPDATES} a tuple of 2 with such a tree inside. Pass that member alone.",
        ),
        "gradients of the backbone only": (
            lambda: anchored(BODY),
            ValueError,
            f"{UPDATES} no entry for ['head']. {THESE_PARAMS}",
        ),
        "other parameters than at init": (
            lambda: anchored(start=BODY),
            ValueError,
            f"{ANCHOR} an entry for ['head']. {THIS_START}",
        ),
        "a state saved without the mask": (
            lambda: add_l2_sp(0.1, mask=MASK).update(G, add_l2_sp(0.1).init(PARAMS), PARAMS),
            ValueError,
            f"{ANCHOR} no entry for ['head']. {THIS_START}",
        ),
        "FrozenDict parameters at init": (
            lambda: anchored(start=freeze(PARAMS)),
            ValueError,
            f"{ANCHOR} a dict in place of a FrozenDict. {THIS_START}",
        ),
        "random keys among the parameters": (
            lambda: nnx.Optimizer(Net(), add_l2_sp(0.1), wrt=nnx.Variable),
            TypeError,
            "`params['drop']['rngs']['count'].value` should be real floating point, got uint32. "
            "Leave this leaf out ...",
        ),
        "a whole number as anchor_dtype": (
            lambda: add_l2_sp(0.1, anchor_dtype="int8"),
            TypeError,
            "`anchor_dtype` should be a floating-point dtype, got 'int8'. Pass one that holds the "
            "parameters' range, such as `jnp.bfloat16`.",
        ),
    },
    transform_pair: {
        "one gradient": (
            lambda: update(transform_pair(), G),
            ValueError,
            f"{MISSING} a dict as updates, shaped like `params`. Call "
            "`tx.update(GradientPair(loss_grads, reg_grads), state, params)`.",
        ),
        "an extra argument": (
            lambda: update(transform_pair(), G, reg_grads=R),
            ValueError,
            "`reg_grads` should not be given to `transform_pair`, got some. It cannot change an "
            "extra argument: pass `GradientPair(loss_grads, reg_grads)` as the updates.",
        ),
        "a factory that is not called": (
            lambda: transform_pair(reg=optax.trace),
            TypeError,
            "`reg` should be an optax transformation, got <function trace at .... Pass what its "
            "factory returns, as in `reg=optax.trace(0.9)`, or leave it out.",
        ),
        "a class that is not called": (
            lambda: transform_pair(optax.MultiSteps),
            TypeError,
            "`loss` should be an optax transformation, got <class .... Pass what its factory "
            "returns, as in `loss=optax.trace(0.9)`, or leave it out.",
        ),
        "a dict of transformations": (
            lambda: transform_pair({"loss": optax.identity()}),
            TypeError,
            "`loss` should be an optax transformation, got {'loss': .... Pass what its factory "
            "returns, as in `loss=optax.trace(0.9)`, or leave it out.",
        ),
        "a number": (
            lambda: transform_pair(0.9),
            TypeError,
            "`loss` should be an optax transformation, got 0.9. Pass what its factory returns, as "
            "in `loss=optax.trace(0.9)`, or leave it out.",
        ),
    },
    value_and_grad_pair: {
        "the sum of both": (
            lambda: fun_returning(lambda x: x),
            TypeError,
            "`fun` should return (loss, reg), got one array. Return the two values apart, ...",
        ),
        "auxiliary data without has_aux": (
            lambda: fun_returning(lambda x: ((x, x), {})),
            TypeError,
            "`loss` should be a scalar, got tuple. Return ..., or `((loss, reg), aux)` with "
            "`has_aux=True`.",
        ),
        "a loss for every example": (
            lambda: fun_returning(lambda x: (x * jnp.ones(2), x)),
            TypeError,
            "`loss` should be a real floating-point scalar, got float32 of shape (2,). Make it "
            "one, for example with `jnp.mean`.",
        ),
        "an Equinox module that is not filtered": (
            lambda: value_and_grad_pair(lambda m: (LOSS, LOSS))(eqx.nn.Lambda(jnp.tanh)),
            TypeError,
            f"`params.fn` should be real floating point, got .... {SPLIT}",
        ),
        "parts of a batch": (
            lambda: fun_returning(lambda x: (x, x), micro_batches=0),
            ValueError,
            "`micro_batches` should be a whole number >= 1 ..., got 0. Pass ....",
        ),
        "a batch by keyword": (
            lambda: fun_returning(lambda x: (x, x), micro_batches=2),
            ValueError,
            "`args` should hold the batch to cut into micro_batches=2, got none. Pass it to `fun` "
            "after `params`, by position, instead of closing over it.",
        ),
        "a batch that cannot be cut": (
            lambda: value_and_grad_pair(lambda p, x: (LOSS, LOSS), micro_batches=2)(G, jnp.ones(3)),
            ValueError,
            "`args` should share a leading axis, ..., got {'args[0]': 3}. Pass ....",
        ),
    },
    apply_rule: {
        "the rule last": (
            lambda: apply_rule(R, G, truncate),
            ValueError,
            "`r` should have the tree structure of `m`, got a dict in place of a function. "
            f"{CONVERT}",
        ),
    },
    cosine_similarity: {
        "dict against FrozenDict": (
            lambda: cosine_similarity(G, freeze(R)),
            ValueError,
            "`r` should have the tree structure of `g`, got a FrozenDict in place of a dict. "
            f"{CONVERT}",
        ),
    },
    first_order_change: {
        "the updates of another tree": (
            lambda: first_order_change(BODY, G),
            ValueError,
            f"`loss_grads` should have the tree structure of `updates`, got an entry for ['head']. "
            f"{CONVERT}",
        ),
        "a pair": (
            lambda: first_order_change(G, GradientPair(G, R)),
            ValueError,
            "`loss_grads` should have the tree structure of `updates`, got a GradientPair of 2 "
            "with such a tree inside. Pass that member alone.",
        ),
        "the value of the loss": (
            lambda: first_order_change(G["head"], LOSS),
            ValueError,
            "`loss_grads` should have shape (4, 2) as in `updates`, got (). Nothing is broadcast: "
            "pass equal shapes.",
        ),
        "whole numbers": (
            lambda: first_order_change(MIXED, MIXED),
            TypeError,
            f"`updates['n']` should be real floating point, got int32. {SPLIT}",
        ),
        "whole numbers as gradient": (
            lambda: first_order_change(jnp.ones(2), jnp.arange(2)),
            TypeError,
            f"`loss_grads` should be real floating point, got int32. {SPLIT}",
        ),
    },
    l2_sp: {
        "an anchor without the head": (
            lambda: l2_sp(PARAMS, BODY),
            ValueError,
            f"`w` should have the tree structure of `w_s`, got an entry for ['head']. {CONVERT}",
        ),
        "whole numbers": (
            lambda: l2_sp(MIXED, MIXED),
            TypeError,
            f"`w['n']` should be real floating point, got int32. {SPLIT}",
        ),
    },
    feature_distance: {
        "one axis only": (
            lambda: feature_distance(PARAMS["head"], PARAMS["head"], reduction=lambda x: x.mean(0)),
            ValueError,
            "`reduction` should return a scalar, got shape (2,). Pass `jnp.mean`, `jnp.sum` or a "
            "function that reduces every axis.",
        ),
    },
    attention_feature_distance: {
        "weights for one map of two": (
            lambda: attention_feature_distance(PARAMS["body"], PARAMS["body"], {"w": jnp.ones(4)}),
            ValueError,
            "`channel_weights` should have the tree structure of `channels of f`, got no entry for "
            f"['b']. {CONVERT}",
        ),
        "channels first": (
            lambda: attention_feature_distance(*[jnp.ones((2, 8, 5))] * 2, jnp.ones(8)),
            ValueError,
            "`channel_weights` should have shape (5,) as in `channels of f`, got (8,). Nothing is "
            "broadcast: pass equal shapes.",
        ),
        "the sum of a map": (
            lambda: attention_feature_distance({"a": LOSS}, {"a": LOSS}, {"a": LOSS}),
            ValueError,
            "`f['a']` should have channels as its last axis, got shape (). Pass an array of shape "
            "(..., channels).",
        ),
        "whole numbers": (
            lambda: attention_feature_distance(PARAMS["head"], PARAMS["head"], jnp.arange(2)),
            TypeError,
            f"`channel_weights` should be real floating point, got int32. {SPLIT}",
        ),
    },
    channel_attention: {
        "a loss for every example": (
            lambda: channel_attention(lambda gates: (X * gates).sum(1), X),
            ValueError,
            "`loss` should return a scalar, got shape (4,). Reduce it, for example with "
            "`jnp.mean`.",
        ),
        "numbers of channels": (
            lambda: channel_attention(lambda gates: LOSS, {"stage1": 64}),
            ValueError,
            "`f_s['stage1']` should have channels as its last axis, got shape (). Pass ....",
        ),
    },
    distillation: {
        "another number of classes": (
            lambda: distillation(jnp.ones((4, 10)), jnp.ones((4, 1000)), temperature=2.0),
            ValueError,
            "`logits` should have shape (4, 1000) as in `logits_s`, got (4, 10). Nothing is "
            "broadcast: pass equal shapes.",
        ),
        "one logit": (
            lambda: distillation(LOSS, LOSS, temperature=2.0),
            ValueError,
            "`logits` should have classes as its last axis, got shape (). Pass an array of shape "
            "(..., classes).",
        ),
        "labels": (
            lambda: distillation(jnp.ones(4), jnp.arange(4), temperature=2.0),
            TypeError,
            f"`logits_s` should be real floating point, got int32. {SPLIT}",
        ),
        **{
            f"temperature {temperature!r:.20}": (
                functools.partial(distillation, X, X, temperature=temperature),
                ValueError,
                f"`temperature` should be a finite number > 0, got {temperature!r:.60}. Pass one "
                "such as 2.0: the larger, the more the improbable classes count.",
            )
            for temperature in (0, -1.0, float("nan"), float("inf"), "2", None, True, (1.0, 2.0))
        },
        "a traced vector as temperature": (
            lambda: jax.jit(lambda t: distillation(X, X, temperature=t))(jnp.ones(2)),
            ValueError,
            "`temperature` should be a finite number > 0, got ...float32[2].... Pass ....",
        ),
    },
    batch_spectral_shrinkage: {
        "feature maps": (
            lambda: batch_spectral_shrinkage(jnp.ones((4, 7, 7, 3))),
            ValueError,
            "`f` should be one matrix [batch, features], got shape (4, 7, 7, 3). Pool or flatten "
            "the other axes first, as in `f.mean((1, 2))`.",
        ),
        "one example without its axis": (
            lambda: batch_spectral_shrinkage(jnp.ones(3)),
            ValueError,
            "`f` should be one matrix [batch, features], got shape (3,). Pool ....",
        ),
        "features by layer": (
            lambda: batch_spectral_shrinkage({"stage1": X}),
            ValueError,
            "`f` should be one matrix [batch, features], got a dict. Pool ....",
        ),
        "whole numbers": (
            lambda: batch_spectral_shrinkage(jnp.ones((2, 2), int)),
            TypeError,
            f"`f` should be real floating point, got int32. {SPLIT}",
        ),
        **{
            f"k {k!r:.20}": (
                functools.partial(batch_spectral_shrinkage, X, k=k),
                ValueError,
                f"`k` should be a whole number from 1 to min(4, 3), got {k!r:.60}. Pass fewer "
                "singular values, or a larger batch.",
            )
            for k in (0, -1, 4, 1.0, None)
        },
    },
}
ROWS = [
    pytest.param(function, *row, id=f"{function.__name__}: {mistake}")
    for function, rows in MISTAKES.items()
    for mistake, row in rows.items()
]
# What a message may name besides the function's arguments: those of its `update`, the gradients'
# names, what `fun` returns, and what it is called with.
NAMES = {"updates", "params", *GradientPair._fields, "loss", "reg", "args"}


@pytest.mark.parametrize(("function", "mistake", "error", "answer"), ROWS)
def test_a_mistake_is_answered_with_its_argument_its_value_and_what_to_do(
    function, mistake, error, answer
):
    with pytest.raises(error) as raised:
        mistake()
    text = str(raised.value)
    assert re.fullmatch(".*".join(map(re.escape, answer.split("..."))), text, re.DOTALL), text
    name = re.fullmatch(r"`(\w+).*?`.*?, got .+?\. .+\.", text).group(1)
    assert name in NAMES | set(inspect.signature(function).parameters)
    assert len(text) <= 350


def raises_of_the_library():
    root = Path(optax_dtnh.__file__).parent
    for path in [*root.glob("*.py"), *root.glob("regularizers/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                yield {(path, line) for line in range(node.lineno, node.end_lineno + 1)}


def test_every_raise_of_the_library_is_reached_by_a_mistake():
    reached = set()
    for _, mistake, error, _ in (row.values for row in ROWS):
        with pytest.raises(error) as raised:
            mistake()
        reached |= {(Path(entry.path), entry.lineno + 1) for entry in raised.traceback}
    assert not [lines for lines in raises_of_the_library() if not reached & lines]


# --- a forgotten `dtnh`: nothing of ours runs, so nothing of ours can tell


@pytest.mark.parametrize("tx", [optax.sgd(0.1), optax.sgd(0.1, momentum=0.9), optax.adam(0.1)])
def test_a_pair_does_not_pass_for_a_gradient_in_an_optimizer_alone(tx):
    with pytest.raises(ValueError, match="Expected|structure"):
        optax.apply_updates(PARAMS, update(tx, GradientPair(G, R))[0])


def test_a_dropped_extra_argument_can_be_asserted_from_the_state():
    forgotten, chained = optax.chain(optax.sgd(0.1)), optax.chain(dtnh(0.1), optax.sgd(0.1))
    update(forgotten, G, reg_grads=R)
    assert optax.tree.get(forgotten.init(PARAMS), "conflict") is None
    assert optax.tree.get(chained.init(PARAMS), "conflict") is not None
