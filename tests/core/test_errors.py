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
MISSPELLED = {"body": True, "tail": False}
MIXED = {"w": jnp.ones(2), "n": jnp.arange(2)}
AB = "lora_a", "lora_b"
SWAPPED = jnp.ones((4, 2, 4))  # A [r, in] of as many layers as it has inputs
LOSS, X, HEAD = jnp.float32(0.5), jnp.ones((4, 3)), PARAMS["head"]
INF = HEAD / 0
TURNED = R | {"head": jnp.ones((2, 4))}
PAIR = GradientPair(G, R)
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


class Net(nnx.Module):
    def __init__(self):
        self.body = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        self.drop = nnx.Dropout(0.1, rngs=nnx.Rngs(0))


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


A_DICT, NO_PAIR_DICT = "a dict as updates, shaped like `params`", "a dict as updates, not a pair"
NO_HEAD, A_HEAD = "no entry for ['head']", "an entry for ['head']"
COMPATIBLE = f"reg_grads | {A_HEAD} | mask_compatible_extra_args"
TAIL = f"{NO_HEAD} and an entry for ['tail']"
ALPHA, TURNS = "alpha |  | ", "['head'] | (4, 2) | g | (2, 4)"
CHANNELS = "channel_weights | channels of f"
NO_SIZES = 0, -1.0, float("nan"), float("inf"), "10", None, True, (1.0, 2.0)
NO_CAPS, NO_ALPHAS = (*NO_SIZES[1:], truncate), NO_SIZES[2:]
KAPPA, CAP = "kappa |  >= 0 | ", " | the largest |r'| / |m|, such as 1.0, after the rule."
BOUND, HOT = "10.0: the larger, the less is capped.", "2.0: the larger, the more ..."

# What is called -> its mistakes: what the answer says, in this order, and the mistake.
MISTAKES = {
    dtnh: [
        # the pair
        (f"{A_DICT} | A second `dtnh` finds none", lambda: both(reg_grads=None)),
        (NO_PAIR_DICT, lambda: update(optax.chain(dtnh(0.1), dtnh(0.1)), (G, R), None)),
        ("a tuple of 2 as updates, shaped ...", lambda: pair(*TWO, params=TWO, start=TWO)),
        ("reg_grads | a tuple of 3 as updates, not a pair", lambda: pair(G, R, R)),
        ("alone, got a tuple of 2 that ends in it", lambda: pair((LOSS, LOSS), PAIR)),
        ("given once, got a pair as updates and", lambda: both((G, R), R)),
        # trees that differ
        (f"reg_grads | {NO_HEAD} | Take both", lambda: both(G, BODY)),
        (COMPATIBLE, lambda: update(optax.masked(dtnh(0.1), MASK), G, reg_grads=R)),
        ("reg_grads | loss_grads | GradientPair", lambda: both(G, PAIR)),
        ("loss_grads | params | tuple", lambda: both((LOSS, G), R)),
        ("reg_grads['head'] | (4, 2) | loss_grads | (2, 4)", lambda: both(G, TURNED)),
        (f"loss_grads | {A_HEAD}", lambda: pair(G, R, params=BODY)),
        ("loss_grads['n'] | int32", lambda: pair(MIXED, MIXED, start=MIXED)),
        ("reg_grads['head'] | complex64", lambda: both(G, COMPLEX)),
        ("state | DTNHState | a dict", lambda: untyped(dtnh(0.1), PAIR)),
        # the options
        ("weight | '0.1'", lambda: dtnh("0.1")),
        ("weight | ...float32[2]...", lambda: traced(lambda w: both(weight=w))),
        ("weight | -0.1", lambda: dtnh(-0.1)),
        ("weight | nan", lambda: both(weight=lambda step: float("nan"))),
        ("inner | <function adam at ...", lambda: dtnh(0.1, inner=optax.adam)),
        ("reference | None", lambda: dtnh(0.1, reference=None)),
        ("rule | (1.0, ...)", lambda: dtnh(0.1, rule=truncate(LOSS, LOSS, LOSS))),
        ("rule | Array(0, dtype=int32)", lambda: injected(dtnh, rule=lambda step: step)),
        ("labels | Along(axes=(0,))", lambda: both(labels=Along((0,)))),
        ("labels | Array(0, dtype=int32)", lambda: injected(dtnh, labels=per_element)),
        ("mask | <function ones_like at ...", lambda: dtnh(0.1, mask={"body": jnp.ones_like})),
        ("mask | Array([False, False], dtype=bool)", lambda: both(mask=lambda _: HEAD[0] > 1)),
        ("mask | {0: False, ...", lambda: dtnh(0.1, mask=dict.fromkeys(range(99), False))),
        (f"mask | {TAIL}", lambda: both(mask=MISSPELLED)),
        (f"labels | {TAIL}", lambda: both(labels={"body": "a", "tail": "b"})),
        ("labels | <function per_e...", lambda: both(labels={"body": per_element, "head": 0})),
        ("labels | Along(axes=(9,)) | 1", lambda: both(labels=along(9))),
        ("labels | (1,) | ('x',)", lambda: in_parts(labels=along(1))),
    ],
    Along: [("axes | 0", lambda: Along(0))],
    scale_by_adam_dtnh: [
        *[(f"bound | {b!r:.60} | {BOUND}", lambda b=b: in_metric(bound=b)) for b in NO_SIZES],
        (f"bound | ...float32[2]... | {BOUND}", lambda: traced(lambda b: in_metric(bound=b))),
        ("state | DTNHState | a dict", lambda: untyped(scale_by_adam_dtnh(0.1), PAIR)),
    ],
    add_l2_sp: [
        ("got None. `add_l2_sp` needs them", lambda: anchored(params=None)),
        ("params['head'] | (2, 4) | state.anchor | (4, ...", lambda: anchored(start=TURNED)),
        ("state | L2SPState | a dict", lambda: untyped(add_l2_sp(0.1))),
        ("gradient of the loss, got a pair", lambda: anchored((G, R))),
        ("updates | params | tuple", lambda: anchored((LOSS, G))),
        (f"updates | {NO_HEAD}", lambda: anchored(BODY)),
        (f"params | anchor | {A_HEAD}", lambda: anchored(start=BODY)),
        *[(f"anchor | {a!r}", lambda a=a: anchored(anchor=a)) for a in (1, False, "w")],
        ("anchor | Array(0., dtype=float32)", lambda: injected(anchor=0.0)),
        ("importance | Array(0, dt...", lambda: injected(importance=lambda w: w)),
        (f"anchor | {NO_HEAD}", lambda: anchored(anchor=BODY)),
        ("anchor | ....value, ... and an entry for ...", lambda: optimizer(anchor=PARAMS)),
        ("anchor['head'] | (4, 2) | params | (2, 4)", lambda: anchored(anchor=TURNED)),
        ("anchor['head'] | int32", lambda: anchored(anchor=WHOLE)),
        ("['body']['b'] | Array(-0.5, ...", lambda: anchored(importance=R)),
        ("['head'] | Array(inf, ...", lambda: anchored(importance=G | {"head": INF})),
        ("params['drop']['rngs']... | uint32", lambda: optimizer(wrt=nnx.Variable)),
        ("anchor_dtype | 'int8'", lambda: add_l2_sp(0.1, anchor_dtype="int8")),
    ],
    transform_pair: [
        ("state | TransformPairState | a dict", lambda: untyped(transform_pair(), PAIR)),
        (f"{A_DICT} | GradientPair(...), state", lambda: update(transform_pair(), G)),
        (
            "not be given to `transform_pair`, got some",
            lambda: update(transform_pair(), G, reg_grads=R),
        ),
        ("reg | <function trace at ...", lambda: transform_pair(reg=optax.trace)),
    ],
    value_and_grad_pair: [
        ("fun | (loss, reg) | a tuple of 3", lambda: of(lambda w: (w[0], w[1], w[0]))),
        ("fun | ((loss, reg), aux) | one array", lambda: of(lambda w: (w[0], 1), has_aux=True)),
        ("loss | tuple", lambda: of(lambda w: ((w[0], w[1]), {}))),
        ("reg | float32 of shape (2,)", lambda: of(lambda w: (w[0], w))),
        ("fun | a tuple of 2", lambda: value_and_grad_pair(losses())),
        ("params | RngCount", lambda: value_and_grad_pair(losses)(Net())),
        ("params.fn | ...", lambda: value_and_grad_pair(losses)(eqx.nn.Lambda(jnp.tanh))),
        ("micro_batches | 0", lambda: of(losses, micro_batches=0)),
        ("micro_batches=2, got none", cut),
        ("{'args[0]': 4, 'args[1]': 'a scalar'}", lambda: cut(X, 0.5)),
    ],
    value_and_dtnh_grad: [
        *[(f"every | {k!r}", lambda k=k: cheap(every=k)) for k in (0, 2.0, True, "4")],
        ("micro_batches | 0", lambda: cheap(micro_batches=0)),
        ("weight | -0.1", lambda: cheap(-0.1)),
        ("rule | 'drop'", lambda: cheap(rule="drop")),
        ("rule | orthogonal", lambda: cheap(rule=orthogonal)),
        ("state | a dict", lambda: cheap(start=DTNHGradState()._asdict())),
        ("mask | params['body']", lambda: cheap(mask={"body": False, "head": True})),
        ("mask | {'body': False, ...", lambda: cheap(mask={"body": False, "head": False})),
        ("fun | (loss, reg) | a dict", lambda: started(lambda w: {}, HEAD)),
        ("params['n'] | int32", lambda: started(losses, MIXED)),
        ("params | RngCount", lambda: started(losses, Net())),
        ("fun | None", lambda: value_and_dtnh_grad(None, 0.1)),
    ],
    all_but: [
        ("names | (['head'],)", lambda: all_but(["head"])),
        ("names | 'haed' | 'head'", lambda: all_but("haed")(PARAMS)),
        (
            "looked for in a tree, got one array",
            lambda: optax.inject_hyperparams(dtnh)(0.1, mask=all_but("b")).init(G),
        ),
    ],
    check: [
        ("params['n'] | int32", lambda: check(dtnh(0.1), MIXED)),
        ("params | BatchStat", lambda: check(dtnh(0.1), nnx.BatchNorm(2, rngs=nnx.Rngs(0)))),
        ("tx | <function sgd at ...", lambda: check(optax.sgd, PARAMS)),
    ],
    describe_mask: [("params | RngCount", lambda: describe_mask(Net(), None))],
    apply_rule: [("r | m | a dict in ... a function", lambda: apply_rule(R, G, truncate))],
    capped: [
        ("rule | 'drop'", lambda: capped("drop", 1.0)),
        *[(f"{KAPPA}{k!r:.60}{CAP}", lambda k=k: capped(truncate, k)) for k in NO_CAPS],
        ("capped_rule", lambda: both(labels=per_element, rule=capped(truncate, 1.0))),
    ],
    conflict_report: [
        (f"anchor | g | {NO_HEAD}", lambda: conflict_report(G, R, anchor=BODY)),
        (f"reference{TURNS}", lambda: conflict_report(G, R, reference=TURNED)),
        ("r['head'] | int32", lambda: conflict_report(G, WHOLE)),
        ("weight |  >= 0 | -0.1 | ...", lambda: conflict_report(G, R, weight=-0.1)),
        ("depth | '1'", lambda: conflict_report(G, R, depth="1")),
    ],
    interpolate: [
        (f"anchor | params | {NO_HEAD}", lambda: interpolate(PARAMS, BODY, 0.5)),
        ("anchor['head'] | (4, 2) | params | (2, 4)", lambda: interpolate(G, TURNED, 0.5)),
        ("params['n'] | int32", lambda: interpolate(MIXED, MIXED, 0.5)),
        *[(f"{ALPHA}{a!r:.60} | ...", lambda a=a: interpolate(G, R, a)) for a in NO_ALPHAS],
    ],
    cosine_similarity: [("r | g | a FrozenDict ...", lambda: cosine_similarity(G, freeze(R)))],
    first_order_change: [
        (f"loss_grads | updates | {A_HEAD}", lambda: first_order_change(BODY, G)),
        ("loss_grads | (4, 2) | updates | ()", lambda: first_order_change(HEAD, LOSS)),
        ("loss_grads['n'] | int32", lambda: first_order_change(MIXED, MIXED)),
    ],
    l2_sp: [
        (f"w | w_s | {A_HEAD}", lambda: l2_sp(PARAMS, BODY)),
        ("w['n'] | int32", lambda: l2_sp(MIXED, MIXED)),
        ("w | {}", lambda: l2_sp({}, {})),
    ],
    feature_distance: [
        ("f | {}", lambda: feature_distance({}, {})),
        ("f['a'] | (0, 3)", lambda: feature_distance({"a": X[:0]}, {"a": X[:0]})),
        ("reduction | (2,)", lambda: feature_distance(HEAD, HEAD, reduction=lambda x: x.mean(0))),
    ],
    attention_feature_distance: [
        (f"{CHANNELS} | no entry for ['b']", lambda: attended(G["body"], {"w": HEAD[:, 0]})),
        ("channel_weights | (3,) | channels of f | (4,)", lambda: attended(X, jnp.ones(4))),
        ("f | {}", lambda: attended({}, {})),
        ("f | (4, 0)", lambda: attended(X[:, :0], jnp.ones(0))),
        ("channel_weights | int32", lambda: attended(HEAD, jnp.arange(2))),
    ],
    channel_attention: [
        ("loss | (4,)", lambda: channel_attention(lambda gate: (X * gate).sum(1), X)),
        ("f_s | {}", lambda: channel_attention(losses, {})),
        ("f_s | (4, 0)", lambda: channel_attention(losses, X[:, :0])),
        ("f_s['stage1'] | channels", lambda: channel_attention(losses, {"stage1": 64})),
    ],
    diagonal_fisher: [
        ("log_prob | one array", lambda: fisher(LOSS)),
        *[(f"key | {k!r}", lambda k=k: fisher(key=k)) for k in (3, "seed")],
        ("log_prob | (2,)", lambda: fisher(lambda w, x: w[0])),
        ("at least one example, got none", lambda: fisher(batches=[X[:0]])),
        ("batches | [(4,), (2,)]", lambda: fisher(batches=[(X, X[:2])])),
        ("batches | [()]", lambda: fisher(batches=X[0])),
        ("params['n'] | int32", lambda: fisher(params=MIXED)),
        ("params | RngCount", lambda: fisher(params=Net())),
    ],
    distillation: [
        ("logits | (3, 4) | logits_s | (4, 3)", lambda: soft(X, X.T)),
        ("logits | classes", lambda: soft(LOSS)),
        ("logits | {}", lambda: soft({})),
        ("logits | (4, 0)", lambda: soft(X[:, :0])),
        ("logits_s | int32", lambda: soft(jnp.ones(4), jnp.arange(4))),
        *[(f"temperature | {t!r:.60} | {HOT}", lambda t=t: soft(X, X, t)) for t in NO_SIZES],
        (f"temperature | ...float32[2]... | {HOT}", lambda: traced(lambda t: soft(X, X, t))),
    ],
    lora_l2_sp: [
        ("names | 'lora'", lambda: lora_l2_sp(PARAMS, names="lora")),
        ("params | body/b, body/w, head", lambda: lora_l2_sp(PARAMS)),
        ("params | 'q/w_lora_b'", lambda: lora_l2_sp({"q": {"w_lora_a": X}})),
        ("params | (4, 3) and (4, 3)", lambda: lora_l2_sp(dict.fromkeys(AB, X))),
        ("params | ... | [0, 1]", lambda: lora_l2_sp(dict.fromkeys(AB, jnp.ones((2, 2, 2))))),
        ("params | ... | [0, 1]", lambda: lora_l2_sp({"lora_a": SWAPPED, "lora_b": SWAPPED.mT})),
        ("scale |  | inf | `alpha / rank` ...", lambda: lora_l2_sp({}, scale=jnp.inf)),
        ("params | (2, 3) and (3, 2)", lambda: lora_l2_sp({"lora_a": X[:2], "lora_b": X[:2].T})),
        ("params['lora_a'] | int32", lambda: lora_l2_sp(dict.fromkeys(AB, jnp.arange(2)))),
    ],
    forward_kl: [
        ("where | (4,) | logits[..., 0] | (3,)", lambda: forward_kl(X, X, where=X[0] > 0)),
        ("where | bool | float32", lambda: forward_kl(X, X, where=X[:, 0])),
        ("logits_s | labels", lambda: forward_kl(X, jnp.arange(4))),
    ],
    reverse_kl: [("logits | int32", lambda: reverse_kl(jnp.arange(4), jnp.arange(4)))],
    non_target_logits: [
        ("labels | (4,) | logits[..., 0] | (3,)", lambda: non_target_logits(X, X[0])),
        ("labels | integer | float32", lambda: non_target_logits(X, X[:, 0])),
        ("logits | int32", lambda: non_target_logits(jnp.ones((2, 2), int), jnp.arange(2))),
        ("logits | classes", lambda: non_target_logits(LOSS, 0)),
        ("logits | (2, 1)", lambda: non_target_logits(jnp.ones((2, 1)), jnp.arange(2))),
    ],
    chunked_mean: [
        ("fun | a int", lambda: chunked_mean(3, HEAD, X)),
        ("tokens | [(3,), (4,)]", lambda: in_chunks(X, X.T)),
        ("tokens | []", in_chunks),
        ("where | bool | float32", lambda: in_chunks(X, where=X[:, 0])),
        ("where | tokens[:, 0] | (4, 3)", lambda: in_chunks(X, where=X > 0)),
        ("params['n'] | int32", lambda: in_chunks(X, params=MIXED)),
        *[(repr(k), lambda k=k: in_chunks(X, chunk_size=k)) for k in (0, 1.0, True, None)],
    ],
    batch_spectral_shrinkage: [
        ("f | shape (4, 7, 7, 3)", lambda: batch_spectral_shrinkage(jnp.ones((4, 7, 7, 3)))),
        ("f | (0, 3)", lambda: batch_spectral_shrinkage(X[:0])),
        ("f | int32", lambda: batch_spectral_shrinkage(jnp.ones((2, 2), int))),
        *[(repr(k), lambda k=k: batch_spectral_shrinkage(X, k=k)) for k in (0, 4, 1.0, None)],
    ],
}
ROWS = [
    pytest.param(function, *row, id=f"{function.__name__}: {row[0]:.40}")
    for function, rows in MISTAKES.items()
    for row in rows
]
# What a message may name besides the function's arguments: those of its `update`, the gradients'
# names, what `fun` returns, and what it is called with.
NAMES = {"updates", "state", "params", *GradientPair._fields, "loss", "reg", "args"}


# The constraints that a TypeError asks for; all others are a ValueError's.
TYPES = r"State`|dtype|function|floating|be a scalar|whole numbers|a whole number$|transformation|"
TYPES += r"bool|integer|strings|in a tree|variables|return \(|random key"


@pytest.mark.parametrize(("function", "said", "mistake"), ROWS)
def test_a_mistake_is_answered_with_what_to_do(function, said, mistake):
    with pytest.raises((TypeError, ValueError)) as raised:
        mistake()
    text = str(raised.value)
    constraint = text.partition(", got ")[0]
    assert raised.type is (TypeError if re.search(TYPES, constraint) else ValueError)
    in_order = ".*".join(map(re.escape, re.split(r" \| |\.\.\.", said)))
    assert re.search(in_order, text, re.DOTALL), text
    name = re.fullmatch(r"`(\w+).*?`.*?, got .+?\. .+\.", text, re.DOTALL).group(1)
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
    for _, _, mistake in (row.values for row in ROWS):
        with pytest.raises((TypeError, ValueError)) as raised:
            mistake()
        reached |= {(Path(entry.path), entry.lineno + 1) for entry in raised.traceback}
    assert not [lines for lines in raises_of_the_library() if not reached & lines]
