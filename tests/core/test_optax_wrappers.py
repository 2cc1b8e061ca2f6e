"""Every wrapper with every spelling: it works, raises, or is a trap that the docs warn of."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import GradientPair, dtnh
from tests.core.loops import (
    LOSS,
    REG,
    START,
    Loop,
    around,
    averaged_after,
    averaged_before,
    bare,
    bias_to_zero,
    bowl,
    clipped_jointly,
    each,
    every_other_step,
    fed,
    flat,
    followed,
    gradients,
    is_pair,
    looking_ahead,
    mean,
    on,
    on_even_steps,
    other,
    poisoned,
    protected_decay,
    quickly,
    sharpness_aware,
    skipping,
    split,
    steep,
    then,
    trajectory,
    with_complex_kernel,
    without_any,
    zeros,
)
from tests.core.uses import USES, all_but_bias, alone
from tests.pages.pages import ROOT, blocks, execute

PAGE = "docs/wrappers.md"
COLUMNS = ["dtnh, pair", "dtnh, reg_grads", "add_l2_sp"]  # of the page


def nothing(use, t, params):
    return {}


def value_of_loss(use, t, params):
    return {"value": bowl(params, LOSS[t], 0.1)}


def loss_of(params, slope):
    return bowl(params, slope, 4.0)


def loss_beside(params, slope, reg_grads=None):
    return bowl(params, slope, 4.0)


def loss_and_reg(params, slope, pull):
    return bowl(params, slope, 4.0) + 0.5 * bowl(params, pull, 0.1)


def loss_and_anchor(params, slope):
    return bowl(params, slope, 4.5)


def search(value_fn, **trees):
    """What a line search takes; `value_fn` finds its own arguments among the extra ones."""

    value_and_grad = quickly(jax.value_and_grad(value_fn))

    def extra(use, t, params):
        data = {name: tree[t] for name, tree in trees.items()}
        value, grad = value_and_grad(params, **data)
        return data | {"value": value, "grad": grad, "value_fn": value_fn}

    return extra


search_loss = search(loss_of, slope=LOSS)
search_loss_beside = search(loss_beside, slope=LOSS)
search_loss_and_anchor = search(loss_and_anchor, slope=LOSS)
search_loss_and_reg = search(loss_and_reg, slope=LOSS, pull=REG)


def search_sum(use, t, params):
    given = search_loss_and_anchor if use.update is alone else search_loss_and_reg
    return given(use, t, params)


def adversary(use, t, params):
    def grad_fn(params, i):
        g, r = gradients(t, params)
        return GradientPair(g, r) if is_pair(use) else g

    return {"grad_fn": grad_fn}


class Row(NamedTuple):
    """`wrap(use)`, the loop that its user means, and the silent other one where there is a trap."""

    wrap: Callable
    right: Callable
    wrong: Callable | None = None
    extra: Callable = nothing
    gradients: Callable = gradients
    start: Any = START
    jit: bool = False


KERNEL = {"kernel": True, "bias": False, "scale": False}
BIAS = {"kernel": False, "bias": True, "scale": False}
HALVES = optax.LookaheadParams.init_synced(START)
COMPLEX = START | {"kernel": START["kernel"] * (1 + 2j)}
down = optax.scale(-0.1)
adversarial = optax.chain(optax.contrib.normalize(), optax.sgd(0.2))


def half(use):
    return use.factory(0.5)


def descend(use):
    return optax.chain(half(use), down)


def schedule(count):
    return 0.5 / (1 + count)


def wrapped(wrapper, **kw):
    """Return `wrap` for a wrapper of one transformation."""
    return lambda use: wrapper(half(use), **kw)


def before(tx, **kw):
    return Row(lambda use: optax.chain(tx, half(use)), **({"right": each(tx)} | kw))


def after(tx, **kw):
    right = then(tx, kw.get("extra", nothing))
    return Row(lambda use: optax.chain(half(use), tx), **({"right": right} | kw))


def partition(tx, **kw):
    return optax.partition({True: tx, False: optax.identity()}, KERNEL, **kw)


def multi_steps(tx):
    return optax.MultiSteps(tx, every_k_schedule=2).gradient_transformation()


def if_finite(tx):
    return optax.apply_if_finite(tx, 9)


def injected(static=()):
    def wrap(use):
        factory = optax.inject_hyperparams(use.factory, static_args=static)
        return factory(0.5, mask=all_but_bias)

    return wrap


def sam(opaque):
    def wrap(use):
        # The adversary climbs the loss alone: a weight of 0 makes one gradient of the pair.
        climb = optax.chain(dtnh(0.0), adversarial) if is_pair(use) and opaque else adversarial
        return optax.contrib.sam(descend(use), climb, opaque_mode=opaque)

    return wrap


def compiled(tx):
    """The same, compiled once for all columns."""
    update = quickly(tx.update, static_argnames="value_fn")
    return optax.GradientTransformationExtraArgs(tx.init, update)


def searching(tx):
    return compiled(optax.chain(optax.scale(-1.0), tx))


BACKTRACKING = searching(
    optax.scale_by_backtracking_linesearch(60, slope_rtol=0.3, decrease_factor=0.9)
)
AROUND = {
    "chain(dtnh, ...)": after(down),
    "named_chain(dtnh, ...)": after(down)._replace(
        wrap=lambda use: optax.named_chain(("dtnh", half(use)), ("down", down))
    ),
    "inject_hyperparams(dtnh), number": Row(
        lambda use: optax.inject_hyperparams(use.factory)(0.7), other(weight=0.7)
    ),
    "inject_hyperparams(dtnh), schedule": Row(
        lambda use: optax.inject_hyperparams(use.factory)(schedule), other(weight=schedule)
    ),
    "inject_hyperparams(dtnh), mask function": Row(injected(), other(mask=all_but_bias)),
    'inject_hyperparams(dtnh, static_args="mask"), mask function': Row(
        injected("mask"), other(mask=all_but_bias)
    ),
    "masked(dtnh)": Row(wrapped(optax.masked, mask=KERNEL), on(["kernel"], lambda g: g)),
    "masked(dtnh, mask_compatible_extra_args=True)": Row(
        wrapped(optax.masked, mask=KERNEL, mask_compatible_extra_args=True),
        on(["kernel"], lambda g: g),
    ),
    "partition({...: dtnh})": Row(wrapped(partition), on(["kernel"], lambda g: g)),
    "partition({...: dtnh}, mask_compatible_extra_args=True)": Row(
        wrapped(partition, mask_compatible_extra_args=True), on(["kernel"], lambda g: g)
    ),
    "selective_transform(dtnh)": Row(
        wrapped(optax.selective_transform, freeze_mask=BIAS),
        on(["kernel", "scale"], jnp.zeros_like),
    ),
    "MultiSteps(dtnh)": Row(
        wrapped(multi_steps),
        every_other_step(mean),
        every_other_step(lambda old, new: new),
        jit=True,
    ),
    "apply_if_finite(dtnh)": Row(
        wrapped(if_finite),
        skipping(({1, 2}, {1}), {1}),
        skipping(({1, 3}, {1, 3}), {1}),
        gradients=poisoned,
        jit=True,
    ),
    "apply_if_finite(chain(dtnh, apply_if_finite(...)))": Row(
        lambda use: if_finite(optax.chain(half(use), if_finite(optax.identity()))),
        skipping(({1, 2}, {1}), {1}),
        gradients=poisoned,
        jit=True,
    ),
    "conditionally_transform(dtnh)": Row(
        wrapped(optax.conditionally_transform, should_transform_fn=lambda step: step % 2 == 0),
        on_even_steps(lambda g: g),
        jit=True,
    ),
    "conditionally_mask(dtnh)": Row(
        wrapped(optax.conditionally_mask, should_transform_fn=lambda step: step % 2 == 0),
        on_even_steps(zeros),
        jit=True,
    ),
    "flatten(dtnh)": Row(wrapped(optax.flatten), bare, flat),
    "contrib.schedule_free(chain(dtnh, ...))": Row(
        lambda use: optax.contrib.schedule_free(descend(use), 0.1),
        around(lambda tx: optax.contrib.schedule_free(tx, 0.1)),
    ),
    "contrib.mechanize(chain(dtnh, ...))": Row(
        lambda use: optax.contrib.mechanize(descend(use), s_init=0.1),
        around(lambda tx: compiled(optax.contrib.mechanize(tx, s_init=0.1))),
        jit=True,
    ),
    "contrib.sam(chain(dtnh, ...))": Row(sam(opaque=False), sharpness_aware(opaque=False)),
    "contrib.sam(chain(dtnh, ...), opaque_mode=True)": Row(
        sam(opaque=True), sharpness_aware(opaque=True), extra=adversary
    ),
    "lookahead(chain(dtnh, ...))": Row(
        lambda use: optax.lookahead(descend(use), 2, 0.5), looking_ahead(), start=HALVES
    ),
    "lookahead(chain(dtnh, ...), reset_state=True)": Row(
        lambda use: optax.lookahead(descend(use), 2, 0.5, reset_state=True),
        looking_ahead(lambda params: START),
        looking_ahead(lambda params: params.fast),
        start=HALVES,
    ),
    "contrib.split_real_and_imaginary(dtnh)": Row(
        wrapped(optax.contrib.split_real_and_imaginary),
        split,
        gradients=with_complex_kernel,
        start=COMPLEX,
    ),
}
BEFORE = {
    "chain(clip, dtnh)": before(optax.clip(0.5)),
    "chain(clip_by_block_rms, dtnh)": before(optax.clip_by_block_rms(0.5)),
    "chain(clip_by_global_norm, dtnh)": before(
        optax.clip_by_global_norm(0.5), wrong=fed(clipped_jointly)
    ),
    "chain(adaptive_grad_clip, dtnh)": before(optax.adaptive_grad_clip(0.1)),
    "chain(centralize, dtnh)": before(optax.centralize()),
    "chain(zero_nans, dtnh)": before(
        optax.zero_nans(),
        right=each(optax.zero_nans(), reg=lambda use: True),
        wrong=each(optax.zero_nans(), reg=lambda use: False),
        gradients=poisoned,
    ),
    "chain(trace, dtnh)": before(optax.trace(0.9)),
    "chain(ema, dtnh)": before(optax.ema(0.9)),
    "chain(add_decayed_weights, dtnh)": before(optax.add_decayed_weights(0.3)),
    "chain(snapshot, dtnh)": before(optax.snapshot("size", optax.tree.norm)),
    "chain(freeze, dtnh)": before(
        optax.freeze(BIAS),
        right=on(["kernel", "scale"], jnp.zeros_like),
        wrong=fed(lambda t, g, r, params: (bias_to_zero(g), r)),
    ),
    "chain(MultiSteps(identity()), dtnh)": before(
        compiled(multi_steps(optax.identity())),
        right=every_other_step(mean),
        wrong=averaged_before,
    ),
    "chain(scale_by_learning_rate, dtnh)": before(
        optax.scale_by_learning_rate(0.1),
        right=then(down, nothing),
        wrong=each(down),
    ),
    "chain(adam, dtnh)": before(
        optax.adam(0.1), right=then(optax.adam(0.1), nothing), wrong=each(optax.adam(0.1))
    ),
}
AFTER = {
    "chain(dtnh, clip_by_global_norm)": after(optax.clip_by_global_norm(0.5)),
    "chain(dtnh, trace)": after(optax.trace(0.9)),
    "chain(dtnh, adam)": after(optax.adam(0.1)),
    "chain(dtnh, add_decayed_weights)": after(
        optax.add_decayed_weights(0.3),
        right=protected_decay,
        wrong=then(optax.add_decayed_weights(0.3), nothing),
    ),
    "chain(dtnh, masked(...))": after(optax.masked(optax.trace(0.9), KERNEL)),
    "chain(dtnh, partition(...))": after(
        optax.partition({True: optax.adam(0.1), False: down}, KERNEL)
    ),
    "chain(dtnh, freeze)": after(
        optax.freeze(BIAS),
        right=on(["kernel", "scale"], jnp.zeros_like),
        wrong=followed(lambda t, d: bias_to_zero(d)),
    ),
    "chain(dtnh, flatten(...))": after(optax.flatten(optax.adam(0.1))),
    "chain(dtnh, MultiSteps(...))": after(
        compiled(multi_steps(optax.identity())), right=every_other_step(mean), wrong=averaged_after
    ),
    "chain(dtnh, apply_if_finite(...))": after(
        compiled(if_finite(optax.identity())),
        right=skipping(({1, 2}, {1}), {1}),
        wrong=skipping(({1, 2, 3},) * 2, ()),
        gradients=poisoned,
    ),
    "chain(dtnh, contrib.schedule_free(...))": after(optax.contrib.schedule_free(down, 0.1)),
    "chain(dtnh, contrib.mechanize(...))": after(
        compiled(optax.contrib.mechanize(down, s_init=0.1))
    ),
    "chain(dtnh, contrib.sam(...))": after(optax.contrib.sam(down, adversarial)),
    "chain(dtnh, lookahead(...))": after(optax.lookahead(down, 2, 0.5), start=HALVES),
    "chain(dtnh, contrib.reduce_on_plateau)": after(
        compiled(optax.contrib.reduce_on_plateau(patience=1)), extra=value_of_loss
    ),
    "chain(dtnh, polyak_sgd)": after(optax.polyak_sgd(), extra=value_of_loss),
    "chain(dtnh, scale_by_backtracking_linesearch)": after(
        BACKTRACKING, extra=search_loss, gradients=steep
    ),
    "chain(dtnh, scale_by_backtracking_linesearch), value_fn(..., reg_grads)": after(
        BACKTRACKING, extra=search_loss_beside, gradients=steep
    ),
    "chain(dtnh, scale_by_backtracking_linesearch), value_fn of the sum": after(
        BACKTRACKING,
        right=then(BACKTRACKING, search_loss),
        wrong=then(BACKTRACKING, search_sum),
        extra=search_sum,
        gradients=steep,
    ),
    "chain(dtnh, scale_by_zoom_linesearch)": after(
        searching(optax.scale_by_zoom_linesearch(9)),
        extra=search_loss,
        gradients=steep,
    ),
    "chain(dtnh, lbfgs)": after(
        compiled(optax.lbfgs(memory_size=2, linesearch=optax.scale_by_zoom_linesearch(9))),
        extra=search_loss,
        gradients=steep,
    ),
    "chain(...) without dtnh": Row(lambda use: optax.chain(down), then(down, nothing), without_any),
}
ROWS = AROUND | BEFORE | AFTER


class Raises(NamedTuple):
    """An error whose message has one of these wordings, and what to do about it."""

    wordings: tuple[str, ...]
    advice: str


class Trap(NamedTuple):
    """A wrong result without an error: its link on the page, and the heading that it leads to."""

    link: str
    heading: str


WORKS = "works"
OTHER_TYPES = "pytree structure error: different types at key path"  # newer versions of jax
INSIDE = Raises(
    ("Expected dict, got GradientPair", OTHER_TYPES),
    "The wrapper expects one tree like the parameters: put it after `dtnh`, or pass `reg_grads=`.",
)
BEHIND = Raises(
    ("Expected named tuple, got", OTHER_TYPES),
    "A transformation that keeps trees got the pair: put it after `dtnh`, or use `transform_pair`.",
)
BRANCHES = Raises(
    ("cond branch outputs must have the same pytree structure",),
    "The wrapper skips `dtnh` in some steps: put it after `dtnh`, or pass `reg_grads=`.",
)
SCANNED = Raises(
    ("scan body function carry input and carry output must have the same pytree structure",),
    "The state takes the shape of the pair in the first step: use `transform_pair`.",
)
FLATTENED = Raises(
    ("`reg_grads` is missing",),
    "`flatten` made one vector of the pair: put it after `dtnh`.",
)
PART = Raises(
    ("`reg_grads` should have the tree structure of `loss_grads`",),
    "The wrapper changes the gradient and not `reg_grads`: set `mask_compatible_extra_args`, "
    "or put it after `dtnh`.",
)
DEAF = Raises(
    ("got an unexpected keyword argument 'reg_grads'",),
    "The wrapper takes no extra arguments: pass the pair, or use the wrapper in a separate step.",
)
SEARCHED = Raises(
    ("These arguments were not consumed by `value_fn`: ['reg_grads']",),
    "Pass the pair, or give `value_fn` an argument `reg_grads=None` that it ignores.",
)
SLOW = Raises(
    ("should have the tree structure of `params`",),
    "`dtnh` got `LookaheadParams`: put it inside `lookahead`.",
)
CALLED = Raises(
    ("`mask` should be a tree or a function, got True for every leaf",),
    "`inject_hyperparams` takes any function for a schedule: pass "
    '`static_args=("mask", "rule", "labels")`.',
)
ERRORS = [INSIDE, BEHIND, BRANCHES, SCANNED, FLATTENED, PART, DEAF, SEARCHED, SLOW, CALLED]

ACCUMULATION = Trap("accumulate", "Accumulate both gradients, then decide")
FINITE = Trap("finite", "`apply_if_finite` looks at the updates alone")
FLAT = Trap("flat", "`flatten` hides the leaves from a mask")
FROZEN = Trap("frozen", "Frozen leaves take part in the decision")
JOINT = Trap("joint", "`clip_by_global_norm` clips the joint norm of a pair")
MISSING = Trap("missing", "A chain without `dtnh` drops `reg_grads`")
RATE = Trap("rate", "A learning rate before `dtnh` turns the pull into a push")
RESET = Trap("reset", "`lookahead` with `reset_state` moves the anchor")
SEARCH = Trap("search", "A line search looks at the loss alone")
UNPROTECTED = Trap("decay", "Weight decay after `dtnh` is not protected")
UNSEEN = Trap("unseen", "A transformation before `dtnh` does not see `reg_grads`")
TRAPS = [ACCUMULATION, FINITE, FLAT, FROZEN, JOINT, MISSING, RATE, RESET, SEARCH]
TRAPS += [UNPROTECTED, UNSEEN]


def cells(pair, reg_grads, add_l2_sp, **exceptions):
    """One row: options, `transform_pair` and the metric change nothing, with exceptions."""
    return {
        "dtnh, pair": pair,
        "dtnh, reg_grads": reg_grads,
        "dtnh, every option, pair": exceptions.get("full_pair", pair),
        "dtnh, every option, reg_grads": exceptions.get("full_reg_grads", reg_grads),
        "transform_pair": exceptions.get("transform_pair", pair),
        "scale_by_adam_dtnh, pair": exceptions.get("metric_pair", pair),
        "scale_by_adam_dtnh, reg_grads": exceptions.get("metric_reg_grads", reg_grads),
        "scale_by_adam_dtnh, every option": exceptions.get("full_metric", reg_grads),
        "add_l2_sp": add_l2_sp,
        "add_l2_sp, every option": exceptions.get("full_l2_sp", add_l2_sp),
    }


EVERYWHERE = cells(WORKS, WORKS, WORKS)
SINGLE = cells(INSIDE, WORKS, WORKS)
FIRST = cells(BEHIND, WORKS, WORKS)
NOT_DEAF = cells(WORKS, DEAF, WORKS)
OUTCOMES = {
    "chain(dtnh, ...)": EVERYWHERE,
    "named_chain(dtnh, ...)": EVERYWHERE,
    "inject_hyperparams(dtnh), number": EVERYWHERE,
    "inject_hyperparams(dtnh), schedule": EVERYWHERE,
    "inject_hyperparams(dtnh), mask function": cells(CALLED, CALLED, CALLED),
    'inject_hyperparams(dtnh, static_args="mask"), mask function': EVERYWHERE,
    "masked(dtnh)": cells(INSIDE, PART, WORKS),
    "masked(dtnh, mask_compatible_extra_args=True)": SINGLE,
    "partition({...: dtnh})": cells(INSIDE, PART, WORKS),
    "partition({...: dtnh}, mask_compatible_extra_args=True)": SINGLE,
    "selective_transform(dtnh)": cells(INSIDE, PART, WORKS),
    "MultiSteps(dtnh)": cells(INSIDE, ACCUMULATION, WORKS),
    "apply_if_finite(dtnh)": cells(BRANCHES, FINITE, WORKS),
    "apply_if_finite(chain(dtnh, apply_if_finite(...)))": cells(BRANCHES, WORKS, WORKS),
    "conditionally_transform(dtnh)": cells(BRANCHES, WORKS, WORKS),
    "conditionally_mask(dtnh)": cells(BRANCHES, WORKS, WORKS),
    "flatten(dtnh)": cells(FLATTENED, PART, WORKS, full_l2_sp=FLAT),
    "contrib.schedule_free(chain(dtnh, ...))": EVERYWHERE,
    "contrib.mechanize(chain(dtnh, ...))": FIRST,
    "contrib.sam(chain(dtnh, ...))": cells(INSIDE, DEAF, WORKS),
    "contrib.sam(chain(dtnh, ...), opaque_mode=True)": NOT_DEAF,
    "lookahead(chain(dtnh, ...))": NOT_DEAF,
    "lookahead(chain(dtnh, ...), reset_state=True)": cells(WORKS, DEAF, RESET),
    "contrib.split_real_and_imaginary(dtnh)": NOT_DEAF,
    "chain(clip, dtnh)": EVERYWHERE,
    "chain(clip_by_block_rms, dtnh)": EVERYWHERE,
    "chain(clip_by_global_norm, dtnh)": cells(JOINT, WORKS, WORKS),
    "chain(adaptive_grad_clip, dtnh)": FIRST,
    "chain(centralize, dtnh)": EVERYWHERE,
    "chain(zero_nans, dtnh)": cells(SCANNED, UNSEEN, WORKS),
    "chain(trace, dtnh)": FIRST,
    "chain(ema, dtnh)": FIRST,
    "chain(add_decayed_weights, dtnh)": FIRST,
    "chain(snapshot, dtnh)": EVERYWHERE,
    "chain(freeze, dtnh)": cells(INSIDE, FROZEN, WORKS, full_reg_grads=WORKS, full_metric=WORKS),
    "chain(MultiSteps(identity()), dtnh)": cells(INSIDE, ACCUMULATION, ACCUMULATION),
    "chain(scale_by_learning_rate, dtnh)": cells(
        WORKS, RATE, RATE, full_pair=RATE, metric_pair=RATE
    ),
    "chain(adam, dtnh)": cells(BEHIND, RATE, RATE),
    "chain(dtnh, clip_by_global_norm)": EVERYWHERE,
    "chain(dtnh, trace)": EVERYWHERE,
    "chain(dtnh, adam)": EVERYWHERE,
    "chain(dtnh, add_decayed_weights)": cells(UNPROTECTED, UNPROTECTED, UNPROTECTED),
    "chain(dtnh, masked(...))": EVERYWHERE,
    "chain(dtnh, partition(...))": EVERYWHERE,
    "chain(dtnh, freeze)": cells(
        FROZEN,
        FROZEN,
        FROZEN,
        full_pair=WORKS,
        full_reg_grads=WORKS,
        full_l2_sp=WORKS,
        full_metric=WORKS,
    ),
    "chain(dtnh, flatten(...))": EVERYWHERE,
    "chain(dtnh, MultiSteps(...))": cells(ACCUMULATION, ACCUMULATION, ACCUMULATION),
    "chain(dtnh, apply_if_finite(...))": cells(
        WORKS,
        WORKS,
        WORKS,
        full_pair=FINITE,
        full_reg_grads=FINITE,
        transform_pair=FINITE,
        metric_pair=FINITE,
        metric_reg_grads=FINITE,
        full_metric=FINITE,
        full_l2_sp=FINITE,
    ),
    "chain(dtnh, contrib.schedule_free(...))": EVERYWHERE,
    "chain(dtnh, contrib.mechanize(...))": EVERYWHERE,
    "chain(dtnh, contrib.sam(...))": NOT_DEAF,
    "chain(dtnh, lookahead(...))": cells(SLOW, SLOW, SLOW),
    "chain(dtnh, contrib.reduce_on_plateau)": EVERYWHERE,
    "chain(dtnh, polyak_sgd)": EVERYWHERE,
    "chain(dtnh, scale_by_backtracking_linesearch)": cells(WORKS, SEARCHED, WORKS),
    "chain(dtnh, scale_by_backtracking_linesearch), value_fn(..., reg_grads)": EVERYWHERE,
    "chain(dtnh, scale_by_backtracking_linesearch), value_fn of the sum": cells(
        SEARCH, SEARCHED, SEARCH
    ),
    "chain(dtnh, scale_by_zoom_linesearch)": cells(WORKS, SEARCHED, WORKS),
    "chain(dtnh, lbfgs)": cells(WORKS, SEARCHED, WORKS),
    "chain(...) without dtnh": cells(INSIDE, MISSING, MISSING),
}


def test_in_the_metric_a_wrapper_does_what_it_does_to_dtnh_but_where_the_page_says_otherwise():
    other = {
        name
        for name, row in OUTCOMES.items()
        for spelling in ("pair", "reg_grads")
        if row[f"scale_by_adam_dtnh, {spelling}"] != row[f"dtnh, {spelling}"]
    }
    assert other == {"chain(scale_by_learning_rate, dtnh)", "chain(dtnh, apply_if_finite(...))"}


def actual(row, use):
    tx = row.wrap(use)

    def step(t, g, r, state, params):
        return use.update(tx, g, r, state, params, **row.extra(use, t, params))

    return Loop(tx.init, step)


def same(actual, expected, tolerance=1e-5):
    """Whether two trajectories agree; NaN equals NaN."""
    pairs = zip(*map(jax.tree.leaves, (actual, expected)), strict=True)
    return all(np.allclose(a, b, tolerance, tolerance, equal_nan=True) for a, b in pairs)


def test_every_cell_has_an_outcome():
    assert list(OUTCOMES) == list(ROWS)
    assert all(list(row) == list(USES) for row in OUTCOMES.values())


@pytest.mark.parametrize("column", COLUMNS)
def test_the_loop_meets_conflict_and_agreement(column):
    loop = bare(USES[column])
    _, states = trajectory(loop, Row(half, bare))
    rates = [optax.tree.get(state, "conflict") for state in states]
    assert max(rates) > 0
    assert min(rates) < 1


def matrix():
    """Every wrapper with every use; shown: the page's columns, but for what works after `dtnh`."""
    for name, row in OUTCOMES.items():
        for use, outcome in row.items():
            shown = use in COLUMNS and not (name in AFTER and outcome == WORKS)
            yield pytest.param(name, use, marks=[] if shown else pytest.mark.slow)


@pytest.mark.parametrize(("name", "column"), [*matrix()])
def test_a_wrapper_does_what_the_table_says(name, column):
    row, use, outcome = ROWS[name], USES[column], OUTCOMES[name][column]
    if isinstance(outcome, Raises):
        message = "|".join(map(re.escape, outcome.wordings))
        with pytest.raises((TypeError, ValueError), match=message):
            trajectory(actual(row, use), row)
        return
    all_params, states = trajectory(actual(row, use), row)
    by_hand = row._replace(jit=False)
    right, _ = trajectory(row.right(use), by_hand)
    if isinstance(outcome, Trap):
        wrong, _ = trajectory(row.wrong(use), by_hand)
        assert same(all_params, wrong)
        assert not same(all_params, right, tolerance=1e-3)
    else:
        assert same(all_params, right)
    found = optax.tree.get_all_with_path(states[-1], "conflict")
    assert bool(found) == (outcome != MISSING)


def cell(outcome):
    if isinstance(outcome, Trap):
        return f"[trap][{outcome.link}]"
    return f"raises {ERRORS.index(outcome) + 1}" if isinstance(outcome, Raises) else outcome


def table(rows):
    lines = ["| | pair | `reg_grads=` | `add_l2_sp` |", "|---|---|---|---|"]
    for name in rows:
        row = [cell(OUTCOMES[name][column]) for column in COLUMNS]
        lines.append(f"| `{name}` | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def errors():
    texts = [(" `` or `` ".join(error.wordings), error.advice) for error in ERRORS]
    return "".join(f"{i}. `` {said} ``\n   {advice}\n" for i, (said, advice) in enumerate(texts, 1))


def links():
    """The sections' addresses, as they are on a rendered page."""
    bare = {trap: re.sub(r"[^\w\- ]", "", trap.heading.lower()).replace(" ", "-") for trap in TRAPS}
    return "".join(f"[{trap.link}]: #{address}\n" for trap, address in bare.items())


def test_the_tables_of_the_page_are_those_of_this_file():
    page = (ROOT / PAGE).read_text()
    tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert tables == [table(rows) for rows in (AROUND, BEFORE, AFTER)]
    assert f"\n{errors()}\n" in page
    assert page.endswith(f"\n{links()}")


def test_the_page_warns_of_every_trap_and_of_no_other():
    outcomes = {outcome for row in OUTCOMES.values() for outcome in row.values()}
    assert outcomes == {WORKS, *ERRORS, *TRAPS}
    warnings = re.findall(r"^### (.*)$", (ROOT / PAGE).read_text(), re.MULTILINE)
    assert sorted(warnings) == sorted(trap.heading for trap in TRAPS)


def test_the_code_of_the_page_runs():
    execute("\n".join(blocks(PAGE, "python")), PAGE)
