"""The mistakes that newcomers make, and the sentence that each is answered with."""

import ast
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

import optax_dtnh
from optax_dtnh import (
    Along,
    DTNHGradState,
    GradientPair,
    add_l2_sp,
    all_but,
    apply_rule,
    capped,
    check,
    conflict_report,
    cosine_similarity,
    describe_mask,
    dtnh,
    first_order_change,
    interpolate,
    orthogonal,
    per_channel,
    per_element,
    scale_by_adam_dtnh,
    transform_pair,
    truncate,
    value_and_dtnh_grad,
    value_and_grad_pair,
)
from optax_dtnh.regularizers import (
    attention_feature_distance,
    batch_spectral_shrinkage,
    channel_attention,
    chunked_mean,
    diagonal_fisher,
    distillation,
    feature_distance,
    forward_kl,
    l2_sp,
    lora_l2_sp,
    non_target_logits,
    reverse_kl,
)

PARAMS = {"body": {"w": jnp.ones((3, 4)), "b": jnp.zeros(4)}, "head": jnp.ones((4, 2))}
G = jax.tree.map(lambda x: x + 1.0, PARAMS)
R = jax.tree.map(lambda x: -x - 0.5, PARAMS)
BODY, MASK, TWO = {"body": R["body"]}, {"body": True, "head": False}, (jnp.ones(2), jnp.ones(2))
MISSPELLED, PARTLY = {"body": True, "tail": False}, {"body": True}
MIXED = {"w": jnp.ones(2), "n": jnp.arange(2)}
ZERO, AB = jnp.bfloat16(0), ("lora_a", "lora_b")
LOSS, X, HEAD = jnp.float32(0.5), jnp.ones((4, 3)), PARAMS["head"]
INF = HEAD / 0
TURNED = R | {"head": jnp.ones((2, 4))}
PAIR, FROZEN = GradientPair(G, R), freeze(PARAMS)
WHOLE, COMPLEX = (R | {"head": jnp.ones((4, 2), dtype)} for dtype in (int, complex))


def update(tx, updates, params=PARAMS, start=PARAMS, **extra):
    return tx.update(updates, tx.init(start), params, **extra)


def both(updates=G, reg_grads=R, weight=0.1, **options):
    return update(dtnh(weight, **options), updates, reg_grads=reg_grads)


def along(axis):
    return lambda tree: jax.tree.map(lambda _: Along((axis,)), tree)


def in_parts(rows=2, **options):
    x, spec = jnp.ones((rows, 2)), jax.P("x")
    step = lambda g, r: update(dtnh(0.1, **options), (g, r), g, g)[0]  # noqa: E731
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(step, mesh=mesh, in_specs=(spec, spec), out_specs=spec)(x, x)


def pair(*updates, params=None, start=PARAMS):
    return update(dtnh(0.1), updates, params, start)


def in_metric(updates=G, reg_grads=R, **options):
    return update(scale_by_adam_dtnh(0.1, **options), updates, reg_grads=reg_grads)


def anchored(updates=G, params=PARAMS, start=PARAMS, **options):
    return update(add_l2_sp(0.1, **options), updates, params, start)


def unfiltered():
    model = eqx.nn.MLP(2, 1, 2, 1, key=jax.random.key(0))
    pair(*(eqx.filter(model, eqx.is_array),) * 2, params=model, start=model)


class Net(nnx.Module):
    def __init__(self):
        self.body = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        self.drop = nnx.Dropout(0.1, rngs=nnx.Rngs(0))


def nnx_update(pair, **options):
    net = Net()
    grads = jax.tree.map(jnp.ones_like, nnx.state(net, nnx.Param))
    nnx.Optimizer(net, dtnh(0.1, **options), wrt=nnx.Param).update(net, *pair(grads))


def of(values, *batch, **options):
    return value_and_grad_pair(lambda w, *batch: values(w), **options)(jnp.ones(2), *batch)


def cheap(weight=0.1, start=None, **options):
    def fun(params, x):
        return jnp.sum(x @ params["body"] @ params["head"]), jnp.sum(params["body"])

    params = {"body": jnp.ones((3, 4)), "head": HEAD}
    return value_and_dtnh_grad(fun, weight, **options)(start or DTNHGradState(), params, X)


def started(fun, params):
    return value_and_dtnh_grad(fun, 0.1)(DTNHGradState(), params)


def traced(function):
    return jax.jit(function)(jnp.ones(2))


def of_integers():
    pair(*(jax.grad(lambda p: p["w"].sum(), allow_int=True)(MIXED),) * 2)


def restored(then, **options):
    add_l2_sp(0.1, **options).update(G, add_l2_sp(0.1, **then).init(PARAMS), PARAMS)


def injected(factory=add_l2_sp, **options):
    optax.inject_hyperparams(factory)(0.1, **options).init(G)


def optimizer(wrt=nnx.Param, **options):
    nnx.Optimizer(Net(), add_l2_sp(0.1, **options), wrt=wrt)


def untyped(tx, updates=G):
    """A state as checkpoint libraries restore it without a target."""
    state = tx.init(PARAMS)
    return tx.update(updates, state._asdict(), PARAMS)


def losses(*anything):
    return LOSS, LOSS


def cut(*batch):
    return of(losses, *batch, micro_batches=2)


def attended(f, weights):
    return attention_feature_distance(f, f, weights)


def in_chunks(*tokens, params=HEAD, **options):
    return chunked_mean(lambda w, x: x.sum() + w.sum(), params, *tokens, **options)


def fisher(log_prob=lambda w, x: x[0], params=HEAD, batches=(X,), **options):
    diagonal_fisher(log_prob, params, batches, **options)


def soft(logits, logits_s=None, temperature=2.0):
    return distillation(logits, logits if logits_s is None else logits_s, temperature=temperature)


# Answers, with places for what differs; `...` is anything.
MISSING = "`reg_grads` is missing, got {}. Call `tx.update(... A second `dtnh` finds none: sum ..."
NO_PAIR = "`reg_grads` is missing, got {}. Call `tx.update(GradientPair(...), state, params)`."
ALONE = "`updates` should be the pair ... alone, got a tuple of 2 that ends in it. Unpack ..."
TWICE = "`reg_grads` should be given once, got a pair as updates and `reg_grads=` as well. Pass ..."
EXTRA = "`reg_grads` should not be given to `transform_pair`, got some. ...: pass `GradientPair(..."
OWN = "`updates` should be the gradient of the loss, got a pair. ...; for an `inner` that ..."
NO_PARAMS = "`params` should be the current parameters, got None. `add_l2_sp` needs them: call ..."
LIKE_LOSS = "`reg_grads` should have ... of `loss_grads`, got {}. Take both with ..."
COMPATIBLE = "`reg_grads` should have ... of `loss_grads`, got {}. ...`mask_compatible_extra..."
MEMBER = "`{}` should have the tree structure of `{}`, got a {} of 2 with such ... inside. Pass ..."
LIKE_PARAMS = "`{}` should have the tree structure of `params`, got {}. Give the gradient with ..."
LIKE_STATE = "`{}` should have the tree structure of `state.{}`, got {}. Call `init` with ..."
SAME_KEYS = "`{}` should have the tree structure of `params`, got {}. Pass a tree of the ..."
LIKE = "`{}` should have the tree structure of `{}`, got {}. Give both the same keys and ..."
SHAPE = "`{}` should have shape {} as in `{}`, got {}. Nothing is broadcast: pass equal shapes."
LEAVE_OUT = "`{}` should be real floating point, got {}. Leave this leaf out ...."
SPLIT = "`{}` should be real floating point, got {}. Split other leaves off first, as with ..."
WEIGHT = "`weight` should be a finite number >= 0, got {}. Pass one such as 0.1, or an ..."
NUMBER = "`{}` should be a finite number{}, got {}. Pass {}"
SIZE = "`{}` should be a finite number > 0, got {}. Pass one such as {}"
TRANSFORMATION = "`{0}` should be an optax transformation, got {1}. Pass what its factory ..."
RULE = "`rule` should be a function such as `optax_dtnh.truncate`, got {}. ... without calling it."
EVERY_LEAF = "`{}` should be a tree or a function, got {} for every leaf. ...`static_args` ..."
BOOLEANS = "`mask` should hold booleans, got {}. Give True for what is regularized, False for ..."
NOTHING = "`mask` should be True for at least one leaf, got {}. Give True for what is ..."
PREFIX = "`{}` should have the structure of the updates or a prefix of it, got {}. Give one ..."
HASHABLE = "`labels` should hold strings, integers or other hashable values, got {}. Give equal ..."
AXES = "`labels` should name axes that the leaf has, got {} for a leaf of {} axes. Give axes ..."
ELEMENTS = "`rule` should be truncate, drop, cosine, plain where ..., got {}. Use another rule ..."
TUPLE = "`axes` should be a tuple of whole numbers or None, got {}. Pass one such as `(-1,)`."
PARTS = "`labels` should not decide along axes {} inside ..., got a leaf in parts over {}. Use ..."
SQUARES = "`importance{}` should be a finite number >= 0, got {}. Pass squares, as ..."
ANCHOR_DTYPE = "`anchor_dtype` should be a floating-point dtype, got {}. Pass one that holds ..."
STRINGS = "`names` should be one or more strings, got {}. Pass each name by itself, as in ..."
NAMED = "`names` should each match a part of some path, got {}, which matches none. Pass ... as {}."
IN_A_TREE = "`names` should be looked for in a tree, got one array. Name `mask` in ..."
VARIABLE = "`params` should hold variables of type `nnx.Param` alone, got {} at .... Pass those ..."
FUNCTION = "`{}` should be a function, got {}. Do not call it first."
WHOLE_NUMBER = "`depth` should be a whole number, got {}. Pass 1, or None."
RETURN = "`fun` should return {}, got {}. Return the two values apart, without summing them, ..."
VALUE = "`{}` should be a scalar, got {}. Return `(loss, reg)`, or `((loss, reg), aux)` with ..."
REAL = "`{}` should be a real floating-point scalar, got {}. Make it one, for example with ..."
COUNT = "`{}` should be a whole number >= 1, got {}. Pass the number of ..."
NO_BATCH = "`args` should hold the batch to cut into micro_batches=2, got none. Pass it to ..."
CUT = "`args` should share ..., the batch, divisible by micro_batches=2, got {}. Pass by ..."
REDUCTION = "`reduction` should return a scalar, got shape {}. Pass `jnp.mean`, `jnp.sum` or ..."
REDUCE = "`loss` should return a scalar, got shape {}. Reduce it, for example with `jnp.mean`."
LAST_AXIS = "`{0}` should have {1} as its last axis, got shape (). Pass an array of shape (..."
ONE_SCALAR = "`log_prob` should return a scalar, got shape {}. It gets one example, ...: sum ..."
NO_EXAMPLE = "`batches` should hold at least one example, got none. Pass an iterable that is ..."
IN_COMMON = "`batches` should yield ... with ... in common, ..., got lengths {}. Pass a ..."
ONE_KEY = "`key` should be one random key, got {}. Pass `jax.random.key(0)`."
MATRIX = "`f` should be one matrix [batch, features], got {}. Pool or flatten the other axes ..."
K = "`k` should be a whole number from 1 to min(4, 3), got {}. Pass fewer singular values, or a ..."
STATE = "`state` should be a `{}`, got {}. Pass that of `init`. Restore a checkpoint into ..."
BEGIN = "`state` should be a `DTNHGradState`, got {}. Start with `DTNHGradState()`, and pass ..."
TWO_RULES = "`rule` should be truncate or plain, got {}. Use another one with ..."
APART = "`mask` should be True for what `reg` depends on, got False for `{}`. One backward pass ..."
NO_LEAF = "`{}` should hold at least one array, got {}. Pass what is compared: the names of the ..."
TWO_NAMES = "`names` should be a tuple of two different names, got {}. Pass that of A and ..."
FACTORS = "`params` should hold factors named 'lora_a' and 'lora_b', got {}. Pass the adapters' ..."
ONE_FACTOR = "`params` should hold both factors of a pair, got no {}. Keep both ..."
RANKS = "`params` should hold A [layers, in, r] and ..., got {}. They fit with `stacked` in {}: ..."
NO_RANKS = "`params` should hold A [layers, in, r] and ..., got {} at 'lora_a'. Transpose one."
CLASSES = "`logits` should have two classes or more, got shape {}. Spell a binary head's as ..."
KIND = "`{}` should be {}, got {}. Convert it, as in `mask > 0` or `labels.astype(int)`."
SHARED = "`tokens` and `where` should share a leading axis, not ..., got {}. Reshape batch and ..."
CHUNK = "`chunk_size` should be a whole number >= 1, got {}. Pass the number of tokens ..."
EMPTY = "`{}` should have no axis of length 0, got shape {}. Leave an empty batch or map out."

TYPE_ERRORS = [STATE, BEGIN, LEAVE_OUT, SPLIT, TRANSFORMATION, RULE, EVERY_LEAF, BOOLEANS]
TYPE_ERRORS += [STRINGS, IN_A_TREE, VARIABLE, HASHABLE, TUPLE, ANCHOR_DTYPE]
TYPE_ERRORS += [RETURN, VALUE, REAL, FUNCTION, WHOLE_NUMBER, KIND, ONE_KEY]


def exception(answer):
    return TypeError if answer in TYPE_ERRORS else ValueError


A_DICT, NO_PAIR_DICT = "a dict as updates, shaped like `params`", "a dict as updates, not a pair"
NO_HEAD, A_HEAD = "no entry for ['head']", "an entry for ['head']"
TAIL = f"{NO_HEAD} and an entry for ['tail']"
NO_BODY = "no entry for ['body']['b'], ['body']['w'], more"
ALPHA, TURNS = "alpha |  | ", "['head'] | (4, 2) | g | (2, 4)"
CHANNELS = "channel_weights | channels of f"
NO_SIZES = 0, -1.0, float("nan"), float("inf"), "10", None, True, (1.0, 2.0)
NO_CAPS, NO_ALPHAS = (*NO_SIZES[1:], truncate), NO_SIZES[2:]
KAPPA, CAP = "kappa |  >= 0 | ", " | the largest |r'| / |m|, such as 1.0, after the rule."
BOUND, HOT = "10.0: the larger, the less is capped.", "2.0: the larger, the more ..."

# What is called -> its mistakes: the answer, what it says in its places, the mistake.
MISTAKES = {
    dtnh: [
        # the pair
        (MISSING, A_DICT, lambda: both(reg_grads=None)),
        (MISSING, "one array as updates, not a pair", lambda: update(dtnh(0.1), HEAD, None)),
        (MISSING, NO_PAIR_DICT, lambda: update(optax.chain(dtnh(0.1), dtnh(0.1)), (G, R), None)),
        (MISSING, "a list of 2 as updates, not a pair", lambda: both([G, R], None)),
        (MISSING, "a tuple of 2 as updates, shaped ...", lambda: pair(*TWO, params=TWO, start=TWO)),
        (MISSING, "a tuple of 3 as updates, not a pair", lambda: pair(G, R, R)),
        (ALONE, "", lambda: pair((LOSS, LOSS), PAIR)),
        (TWICE, "", lambda: both((G, R), R)),
        # trees that differ
        (LIKE_LOSS, NO_HEAD, lambda: both(G, BODY)),
        (LIKE_LOSS, f"{NO_BODY} and an entry for ['b'], ['w']", lambda: both(G, R["body"])),
        (LIKE_LOSS, "a function in place of a dict", lambda: both(G, lambda params: 0.0)),
        (LIKE_LOSS, "other containers for the same keys", lambda: pair([[LOSS]], [(LOSS,)])),
        (COMPATIBLE, A_HEAD, lambda: update(optax.masked(dtnh(0.1), MASK), G, reg_grads=R)),
        (MEMBER, "reg_grads | loss_grads | GradientPair", lambda: both(G, PAIR)),
        (MEMBER, "loss_grads | params | tuple", lambda: both((LOSS, G), R)),
        (SHAPE, "reg_grads['head'] | (4, 2) | loss_grads | (2, 4)", lambda: both(G, TURNED)),
        (LIKE_PARAMS, f"loss_grads | {A_HEAD}", lambda: pair(G, R, params=BODY)),
        (LIKE_PARAMS, "loss_grads | one array in place of a dict", lambda: pair(LOSS, G, params=G)),
        (LIKE_PARAMS, "loss_grads | no entry for .activation, .final_activation", unfiltered),
        (LEAVE_OUT, "loss_grads['n'] | int32", lambda: pair(MIXED, MIXED, start=MIXED)),
        (LEAVE_OUT, "loss_grads['n'] | [('float0', 'V')]", of_integers),
        (LEAVE_OUT, "reg_grads['head'] | complex64", lambda: both(G, COMPLEX)),
        (STATE, "DTNHState | a dict", lambda: untyped(dtnh(0.1), PAIR)),
        (STATE, "DTNHState | None", lambda: dtnh(0.1).update(PAIR, None, PARAMS)),
        # the options
        (WEIGHT, "'0.1'", lambda: dtnh("0.1")),
        (WEIGHT, "Array([1., 1.], dtype=float32)", lambda: both(weight=lambda step: jnp.ones(2))),
        (WEIGHT, "...float32[2]...", lambda: traced(lambda w: both(weight=w))),
        (WEIGHT, "-0.1", lambda: dtnh(-0.1)),
        (WEIGHT, "nan", lambda: both(weight=lambda step: float("nan"))),
        (TRANSFORMATION, "inner | <function adam at ...", lambda: dtnh(0.1, inner=optax.adam)),
        (TRANSFORMATION, "reference | None", lambda: dtnh(0.1, reference=None)),
        (RULE, "(1.0, ...)", lambda: dtnh(0.1, rule=truncate(LOSS, LOSS, LOSS))),
        (RULE, "Array(0, dtype=int32)", lambda: injected(dtnh, rule=lambda step: step)),
        (EVERY_LEAF, "mask | True", lambda: both(mask=True)),
        (EVERY_LEAF, "labels | Along(axes=(0,))", lambda: both(labels=Along((0,)))),
        (EVERY_LEAF, "labels | Array(0, dtype=int32)", lambda: injected(dtnh, labels=per_element)),
        (EVERY_LEAF, "labels | Array(0, dtype=int32)", lambda: injected(dtnh, labels=per_channel)),
        (BOOLEANS, "'yes'", lambda: both(mask={"body": "yes", "head": "no"})),
        (BOOLEANS, "<function ones_like at ...", lambda: dtnh(0.1, mask={"body": jnp.ones_like})),
        (BOOLEANS, "Array([False, False], dtype=bool)", lambda: both(mask=lambda _: HEAD[0] > 1)),
        (NOTHING, "{0: False, ...", lambda: dtnh(0.1, mask=dict.fromkeys(range(99), False))),
        (PREFIX, f"mask | {TAIL}", lambda: both(mask=MISSPELLED)),
        (PREFIX, "mask | None for a dict", lambda: both(mask=lambda tree: None)),
        (PREFIX, "mask | a dict for a State", lambda: nnx_update(lambda g: [(g, g)], mask=PARTLY)),
        (PREFIX, f"labels | {TAIL}", lambda: both(labels={"body": "a", "tail": "b"})),
        (HASHABLE, "<function per_e...", lambda: both(labels={"body": per_element, "head": 0})),
        (AXES, "Along(axes=(9,)) | 1", lambda: both(labels=along(9))),
        (ELEMENTS, "orthogonal", lambda: both(labels=per_element, rule=orthogonal)),
        (PARTS, "(1,) | ('x',)", lambda: in_parts(labels=along(1))),
        (PARTS, "(1,) | ('x',)", lambda: in_parts(rows=1, labels=along(1))),
    ],
    Along: [(TUPLE, "0", lambda: Along(0))],
    scale_by_adam_dtnh: [
        *[(SIZE, f"bound | {b!r:.60} | {BOUND}", lambda b=b: in_metric(bound=b)) for b in NO_SIZES],
        (SIZE, f"bound | ...float32[2]... | {BOUND}", lambda: traced(lambda b: in_metric(bound=b))),
        (STATE, "DTNHState | a dict", lambda: untyped(scale_by_adam_dtnh(0.1), PAIR)),
        (LIKE_LOSS, NO_HEAD, lambda: in_metric(reg_grads=BODY)),
    ],
    add_l2_sp: [
        (NO_PARAMS, "", lambda: anchored(params=None)),
        (SHAPE, "params['head'] | (2, 4) | state.anchor | (4, ...", lambda: anchored(start=TURNED)),
        (STATE, "L2SPState | a dict", lambda: untyped(add_l2_sp(0.1))),
        (OWN, "", lambda: anchored((G, R))),
        (MEMBER, "updates | params | tuple", lambda: anchored((LOSS, G))),
        (LIKE_PARAMS, f"updates | {NO_HEAD}", lambda: anchored(BODY)),
        (LIKE_STATE, f"params | anchor | {A_HEAD}", lambda: anchored(start=BODY)),
        (LIKE_STATE, "params | anchor | a dict in ... FrozenDict", lambda: anchored(start=FROZEN)),
        (LIKE_STATE, f"params | anchor | {NO_HEAD}", lambda: restored({}, mask=MASK)),
        (LIKE_STATE, "importance | importance | None ...", lambda: restored({"importance": G})),
        *[(EVERY_LEAF, f"anchor | {a!r}", lambda a=a: anchored(anchor=a)) for a in (1, False, "w")],
        (EVERY_LEAF, "anchor | Array(0., dtype=float32)", lambda: injected(anchor=0.0)),
        (EVERY_LEAF, "importance | Array(0, dt...", lambda: injected(importance=lambda w: w)),
        (SAME_KEYS, f"anchor | {NO_HEAD}", lambda: anchored(anchor=BODY)),
        (
            SAME_KEYS,
            "anchor | ....value, ... and an entry for ...",
            lambda: optimizer(anchor=PARAMS),
        ),
        (SHAPE, "anchor['head'] | (4, 2) | params | (2, 4)", lambda: anchored(anchor=TURNED)),
        (LEAVE_OUT, "anchor['head'] | int32", lambda: anchored(anchor=WHOLE)),
        (SQUARES, "['body']['b'] | Array(-0.5, ...", lambda: anchored(importance=R)),
        (SQUARES, "['head'] | Array(nan, ...", lambda: anchored(importance=G | {"head": 0 * INF})),
        (SQUARES, "['head'] | Array(inf, ...", lambda: anchored(importance=G | {"head": INF})),
        (LEAVE_OUT, "params['drop']['rngs']... | uint32", lambda: optimizer(wrt=nnx.Variable)),
        (ANCHOR_DTYPE, "'int8'", lambda: add_l2_sp(0.1, anchor_dtype="int8")),
        (ANCHOR_DTYPE, "Array(0, dtype=bfloat16)", lambda: add_l2_sp(0.1, anchor_dtype=ZERO)),
    ],
    transform_pair: [
        (STATE, "TransformPairState | a dict", lambda: untyped(transform_pair(), PAIR)),
        (NO_PAIR, A_DICT, lambda: update(transform_pair(), G)),
        (EXTRA, "", lambda: update(transform_pair(), G, reg_grads=R)),
        (TRANSFORMATION, "reg | <function trace at ...", lambda: transform_pair(reg=optax.trace)),
        (TRANSFORMATION, "loss | 0.9", lambda: transform_pair(0.9)),
    ],
    value_and_grad_pair: [
        (RETURN, "(loss, reg) | one array", lambda: of(jnp.sum)),
        (RETURN, "(loss, reg) | a tuple of 3", lambda: of(lambda w: (w[0], w[1], w[0]))),
        (RETURN, "((loss, reg), aux) | one array", lambda: of(lambda w: (w[0], 1), has_aux=True)),
        (VALUE, "loss | tuple", lambda: of(lambda w: ((w[0], w[1]), {}))),
        (VALUE, "reg | NoneType", lambda: of(lambda w: (w[0], None))),
        (REAL, "reg | float32 of shape (2,)", lambda: of(lambda w: (w[0], w))),
        (FUNCTION, "fun | a tuple of 2", lambda: value_and_grad_pair(losses())),
        (VARIABLE, "RngCount", lambda: value_and_grad_pair(losses)(Net())),
        (VARIABLE, "Cache", lambda: value_and_grad_pair(losses)(nnx.State({"a": nnx.Cache(HEAD)}))),
        (SPLIT, "params.fn | ...", lambda: value_and_grad_pair(losses)(eqx.nn.Lambda(jnp.tanh))),
        (COUNT, "micro_batches | 0", lambda: of(losses, micro_batches=0)),
        (NO_BATCH, "", cut),
        (CUT, "{'args[0]': 4, 'args[1]': 'a scalar'}", lambda: cut(X, 0.5)),
    ],
    value_and_dtnh_grad: [
        *[(COUNT, f"every | {k!r}", lambda k=k: cheap(every=k)) for k in (0, 2.0, True, "4")],
        (COUNT, "micro_batches | 0", lambda: cheap(micro_batches=0)),
        (WEIGHT, "-0.1", lambda: cheap(-0.1)),
        (WEIGHT, "nan", lambda: cheap(lambda step: float("nan"))),
        (RULE, "'drop'", lambda: cheap(rule="drop")),
        (TWO_RULES, "orthogonal", lambda: cheap(rule=orthogonal)),
        (TWO_RULES, "capped_rule", lambda: cheap(rule=capped(truncate, 1.0))),
        (BEGIN, "a dict", lambda: cheap(start=DTNHGradState()._asdict())),
        (BEGIN, "one array", lambda: value_and_dtnh_grad(losses, 0.1)(HEAD, X)),
        (APART, "params['body']", lambda: cheap(mask={"body": False, "head": True})),
        (APART, "params['body']", lambda: cheap(mask=all_but("body"), micro_batches=2)),
        (NOTHING, "{'body': False, ...", lambda: cheap(mask={"body": False, "head": False})),
        (RETURN, "(loss, reg) | a dict", lambda: started(lambda w: {}, HEAD)),
        (SPLIT, "params['n'] | int32", lambda: started(losses, MIXED)),
        (VARIABLE, "RngCount", lambda: started(losses, Net())),
        (FUNCTION, "fun | None", lambda: value_and_dtnh_grad(None, 0.1)),
    ],
    all_but: [
        (STRINGS, "(['head'],)", lambda: all_but(["head"])),
        (NAMED, "'haed' | 'head'", lambda: all_but("haed")(PARAMS)),
        (NAMED, "'zz' | 'body', 'b', 'w', 'head'", lambda: all_but("zz")(PARAMS)),
        (IN_A_TREE, "", lambda: optax.inject_hyperparams(dtnh)(0.1, mask=all_but("b")).init(G)),
    ],
    check: [
        (SPLIT, "params['n'] | int32", lambda: check(dtnh(0.1), MIXED)),
        (VARIABLE, "BatchStat", lambda: check(dtnh(0.1), nnx.BatchNorm(2, rngs=nnx.Rngs(0)))),
        (TRANSFORMATION, "tx | <function sgd at ...", lambda: check(optax.sgd, PARAMS)),
    ],
    describe_mask: [(VARIABLE, "RngCount", lambda: describe_mask(Net(), None))],
    apply_rule: [(LIKE, "r | m | a dict in ... a function", lambda: apply_rule(R, G, truncate))],
    capped: [
        (RULE, "'drop'", lambda: capped("drop", 1.0)),
        *[(NUMBER, f"{KAPPA}{k!r:.60}{CAP}", lambda k=k: capped(truncate, k)) for k in NO_CAPS],
        (ELEMENTS, "capped_rule", lambda: both(labels=per_element, rule=capped(truncate, 1.0))),
    ],
    conflict_report: [
        (LIKE, f"anchor | g | {NO_HEAD}", lambda: conflict_report(G, R, anchor=BODY)),
        (SHAPE, f"reference{TURNS}", lambda: conflict_report(G, R, reference=TURNED)),
        (LEAVE_OUT, "r['head'] | int32", lambda: conflict_report(G, WHOLE)),
        (NUMBER, "weight |  >= 0 | -0.1 | ...", lambda: conflict_report(G, R, weight=-0.1)),
        (WHOLE_NUMBER, "'1'", lambda: conflict_report(G, R, depth="1")),
    ],
    interpolate: [
        (LIKE, f"anchor | params | {NO_HEAD}", lambda: interpolate(PARAMS, BODY, 0.5)),
        (SHAPE, "anchor['head'] | (4, 2) | params | (2, 4)", lambda: interpolate(G, TURNED, 0.5)),
        (LEAVE_OUT, "params['n'] | int32", lambda: interpolate(MIXED, MIXED, 0.5)),
        *[(NUMBER, f"{ALPHA}{a!r:.60} | ...", lambda a=a: interpolate(G, R, a)) for a in NO_ALPHAS],
    ],
    cosine_similarity: [
        (LIKE, "r | g | a FrozenDict ...", lambda: cosine_similarity(G, freeze(R)))
    ],
    first_order_change: [
        (LIKE, f"loss_grads | updates | {A_HEAD}", lambda: first_order_change(BODY, G)),
        (MEMBER, "loss_grads | updates | GradientPair", lambda: first_order_change(G, PAIR)),
        (SHAPE, "loss_grads | (4, 2) | updates | ()", lambda: first_order_change(HEAD, LOSS)),
        (SPLIT, "loss_grads['n'] | int32", lambda: first_order_change(MIXED, MIXED)),
    ],
    l2_sp: [
        (LIKE, f"w | w_s | {A_HEAD}", lambda: l2_sp(PARAMS, BODY)),
        (SPLIT, "w['n'] | int32", lambda: l2_sp(MIXED, MIXED)),
        (NO_LEAF, "w | {}", lambda: l2_sp({}, {})),
    ],
    feature_distance: [
        (NO_LEAF, "f | {}", lambda: feature_distance({}, {})),
        (EMPTY, "f['a'] | (0, 3)", lambda: feature_distance({"a": X[:0]}, {"a": X[:0]})),
        (REDUCTION, "(2,)", lambda: feature_distance(HEAD, HEAD, reduction=lambda x: x.mean(0))),
    ],
    attention_feature_distance: [
        (LIKE, f"{CHANNELS} | no entry for ['b']", lambda: attended(G["body"], {"w": HEAD[:, 0]})),
        (SHAPE, "channel_weights | (3,) | channels of f | (4,)", lambda: attended(X, jnp.ones(4))),
        (LAST_AXIS, "f['a'] | channels", lambda: attended({"a": LOSS}, {"a": LOSS})),
        (NO_LEAF, "f | {}", lambda: attended({}, {})),
        (EMPTY, "f | (4, 0)", lambda: attended(X[:, :0], jnp.ones(0))),
        (SPLIT, "channel_weights | int32", lambda: attended(HEAD, jnp.arange(2))),
    ],
    channel_attention: [
        (REDUCE, "(4,)", lambda: channel_attention(lambda gate: (X * gate).sum(1), X)),
        (NO_LEAF, "f_s | {}", lambda: channel_attention(losses, {})),
        (EMPTY, "f_s | (4, 0)", lambda: channel_attention(losses, X[:, :0])),
        (LAST_AXIS, "f_s['stage1'] | channels", lambda: channel_attention(losses, {"stage1": 64})),
    ],
    diagonal_fisher: [
        (ONE_SCALAR, "(2,)", lambda: fisher(lambda w, x: w[0])),
        (NO_EXAMPLE, "", lambda: fisher(batches=[X[:0]])),
        (IN_COMMON, "[(4,), (2,)]", lambda: fisher(batches=[(X, X[:2])])),
        (IN_COMMON, "[()]", lambda: fisher(batches=X[0])),
        (SPLIT, "params['n'] | int32", lambda: fisher(params=MIXED)),
        (VARIABLE, "RngCount", lambda: fisher(params=Net())),
        (FUNCTION, "log_prob | one array", lambda: fisher(LOSS)),
        *[(ONE_KEY, repr(k), lambda k=k: fisher(key=k)) for k in (3, "seed")],
    ],
    distillation: [
        (SHAPE, "logits | (3, 4) | logits_s | (4, 3)", lambda: soft(X, X.T)),
        (LAST_AXIS, "logits | classes", lambda: soft(LOSS)),
        (NO_LEAF, "logits | {}", lambda: soft({})),
        (EMPTY, "logits | (4, 0)", lambda: soft(X[:, :0])),
        (SPLIT, "logits_s | int32", lambda: soft(jnp.ones(4), jnp.arange(4))),
        *[(SIZE, f"temperature | {t!r:.60} | {HOT}", lambda t=t: soft(X, X, t)) for t in NO_SIZES],
        (SIZE, f"temperature | ...float32[2]... | {HOT}", lambda: traced(lambda t: soft(X, X, t))),
    ],
    lora_l2_sp: [
        (TWO_NAMES, "'lora'", lambda: lora_l2_sp(PARAMS, names="lora")),
        (FACTORS, "body/b, body/w, head", lambda: lora_l2_sp(PARAMS)),
        (ONE_FACTOR, "'q/w_lora_b'", lambda: lora_l2_sp({"q": {"w_lora_a": X}})),
        (NO_RANKS, "(4, 3) and (4, 3)", lambda: lora_l2_sp(dict.fromkeys(AB, X))),
        (RANKS, "... | [0, 1]", lambda: lora_l2_sp(dict.fromkeys(AB, jnp.ones((2, 2, 2))))),
        (NUMBER, "scale |  | inf | `alpha / rank` ...", lambda: lora_l2_sp({}, scale=jnp.inf)),
        (SPLIT, "params['lora_a'] | int32", lambda: lora_l2_sp(dict.fromkeys(AB, jnp.arange(2)))),
    ],
    forward_kl: [
        (SHAPE, "where | (4,) | logits[..., 0] | (3,)", lambda: forward_kl(X, X, where=X[0] > 0)),
        (LIKE, "where | logits[..., 0] | a dict ... one array", lambda: forward_kl(X, X, where={})),
        (KIND, "where | bool | float32", lambda: forward_kl(X, X, where=X[:, 0])),
    ],
    reverse_kl: [(SPLIT, "logits | int32", lambda: reverse_kl(jnp.arange(4), jnp.arange(4)))],
    non_target_logits: [
        (SHAPE, "labels | (4,) | logits[..., 0] | (3,)", lambda: non_target_logits(X, X[0])),
        (KIND, "labels | integer | float32", lambda: non_target_logits(X, X[:, 0])),
        (SPLIT, "logits | int32", lambda: non_target_logits(jnp.ones((2, 2), int), jnp.arange(2))),
        (LAST_AXIS, "logits | classes", lambda: non_target_logits(LOSS, 0)),
        (CLASSES, "(2, 1)", lambda: non_target_logits(jnp.ones((2, 1)), jnp.arange(2))),
    ],
    chunked_mean: [
        (SHARED, "[(3,), (4,)]", lambda: in_chunks(X, X.T)),
        (SHARED, "[(3,), (4,)]", lambda: in_chunks(X, where=X[0] > 0)),
        (SHARED, "[(0,)]", lambda: in_chunks(X[:0])),
        (SHARED, "[()]", lambda: in_chunks(LOSS)),
        (SHARED, "[]", in_chunks),
        (FUNCTION, "fun | a int", lambda: chunked_mean(3, HEAD, X)),
        (KIND, "where | bool | float32", lambda: in_chunks(X, where=X[:, 0])),
        (SPLIT, "params['n'] | int32", lambda: in_chunks(X, params=MIXED)),
        *[(CHUNK, repr(k), lambda k=k: in_chunks(X, chunk_size=k)) for k in (0, 1.0, True, None)],
    ],
    batch_spectral_shrinkage: [
        (MATRIX, "shape (4, 7, 7, 3)", lambda: batch_spectral_shrinkage(jnp.ones((4, 7, 7, 3)))),
        (EMPTY, "f | (0, 3)", lambda: batch_spectral_shrinkage(X[:0])),
        (MATRIX, "a dict", lambda: batch_spectral_shrinkage({"stage1": X})),
        (SPLIT, "f | int32", lambda: batch_spectral_shrinkage(jnp.ones((2, 2), int))),
        *[(K, repr(k), lambda k=k: batch_spectral_shrinkage(X, k=k)) for k in (0, 4, 1.0, None)],
    ],
}
ROWS = [
    pytest.param(function, *row, id=f"{function.__name__}: {row[1]:.40}")
    for function, rows in MISTAKES.items()
    for row in rows
]
# What a message may name besides the function's arguments: those of its `update`, the gradients'
# names, what `fun` returns, and what it is called with.
NAMES = {"updates", "state", "params", *GradientPair._fields, "loss", "reg", "args"}


@pytest.mark.parametrize(("function", "answer", "said", "mistake"), ROWS)
def test_a_mistake_is_answered_with_what_to_do(function, answer, said, mistake):
    with pytest.raises(exception(answer)) as raised:
        mistake()
    text, answer = str(raised.value), answer.format(*said.split(" | "))
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
    for _, answer, _, mistake in (row.values for row in ROWS):
        with pytest.raises(exception(answer)) as raised:
            mistake()
        reached |= {(Path(entry.path), entry.lineno + 1) for entry in raised.traceback}
    assert not [lines for lines in raises_of_the_library() if not reached & lines]
