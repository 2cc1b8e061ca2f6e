"""Every wrapper with every spelling: it works, raises, or is a trap that the docs warn of."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from optax_dtnh import GradientPair, dtnh
from tests.core import loops
from tests.core.loops import START, Loop, bare, bowl, each, gradients, is_pair, on, poisoned, then
from tests.core.uses import USES, all_but_bias, alone
from tests.pages.pages import ROOT

PAGE = "docs/wrappers.md"
COLUMNS = ["dtnh, pair", "dtnh, reg_grads", "add_l2_sp"]  # of the page


def nothing(use, t, params):
    return {}


def value_of_loss(use, t, params):
    return {"value": bowl(params, loops.LOSS[t], 0.1)}


def search(value_fn, **trees):
    """What a line search takes; `value_fn` finds its own arguments among the extra ones."""

    value_and_grad = loops.quickly(jax.value_and_grad(value_fn))

    def extra(use, t, params):
        data = {name: tree[t] for name, tree in trees.items()}
        value, grad = value_and_grad(params, **data)
        return data | {"value": value, "grad": grad, "value_fn": value_fn}

    return extra


search_loss = search(lambda params, slope: bowl(params, slope, 4.0), slope=loops.LOSS)
search_loss_beside = search(lambda w, slope, reg_grads=None: bowl(w, slope, 4.0), slope=loops.LOSS)
search_loss_and_anchor = search(lambda params, slope: bowl(params, slope, 4.5), slope=loops.LOSS)
search_loss_and_reg = search(
    lambda params, slope, pull: bowl(params, slope, 4.0) + 0.5 * bowl(params, pull, 0.1),
    slope=loops.LOSS,
    pull=loops.REG,
)


def search_sum(use, t, params):
    given = search_loss_and_anchor if use.update is alone else search_loss_and_reg
    return given(use, t, params)


def adversary(use, t, params):
    def grad_fn(params, i):
        g, r = gradients(t, params)
        return GradientPair(g, r) if is_pair(use) else g

    return {"grad_fn": grad_fn}


class Row(NamedTuple):
    """`wrap(use)`, and the loop that its user means."""

    wrap: Callable
    right: Callable
    extra: Callable = nothing
    gradients: Callable = gradients
    start: Any = START
    jit: bool = False


KERNEL = {"kernel": True, "bias": False, "scale": False}
BIAS = {"kernel": False, "bias": True, "scale": False}
HALVES = optax.LookaheadParams.init_synced(START)
COMPLEX = START | {"kernel": START["kernel"] * (1 + 2j)}
down, ADAM = optax.scale(-0.1), optax.adam(0.1)
adversarial = optax.chain(contrib.normalize(), optax.sgd(0.2))


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
        return contrib.sam(descend(use), climb, opaque_mode=opaque)

    return wrap


def compiled(tx):
    """The same, compiled once for all columns."""
    update = loops.quickly(tx.update, static_argnames="value_fn")
    return optax.GradientTransformationExtraArgs(tx.init, update)


def searching(tx):
    return compiled(optax.chain(optax.scale(-1.0), tx))


BACK = searching(optax.scale_by_backtracking_linesearch(60, slope_rtol=0.3, decrease_factor=0.9))
# What their users mean.
KERNEL_ALONE, THAWED = on(["kernel"], lambda g: g), on(["kernel", "scale"], jnp.zeros_like)
SKIPPED, MEANS = loops.skipping, loops.every_other_step
LOOKAHEAD = then(optax.lookahead(down, 2, 0.5), nothing)
SEARCH = {"extra": search_loss, "gradients": loops.steep}
SECOND = compiled(multi_steps(optax.identity()))
EVEN = {"should_transform_fn": lambda step: step % 2 == 0}

AROUND = {
    "chain(dtnh, ...)": after(down),
    "named_chain(dtnh, ...)": after(down)._replace(
        wrap=lambda use: optax.named_chain(("dtnh", half(use)), ("down", down))
    ),
    "inject_hyperparams(dtnh), number": Row(
        lambda use: optax.inject_hyperparams(use.factory)(0.7), loops.other(weight=0.7)
    ),
    "inject_hyperparams(dtnh), schedule": Row(
        lambda use: optax.inject_hyperparams(use.factory)(schedule), loops.other(weight=schedule)
    ),
    "inject_hyperparams(dtnh), mask function": Row(injected(), loops.other(mask=all_but_bias)),
    'inject_hyperparams(dtnh, static_args="mask"), mask function': Row(
        injected("mask"), loops.other(mask=all_but_bias)
    ),
    "masked(dtnh)": Row(wrapped(optax.masked, mask=KERNEL), KERNEL_ALONE),
    "masked(dtnh, mask_compatible_extra_args=True)": Row(
        wrapped(optax.masked, mask=KERNEL, mask_compatible_extra_args=True), KERNEL_ALONE
    ),
    "partition({...: dtnh})": Row(wrapped(partition), KERNEL_ALONE),
    "partition({...: dtnh}, mask_compatible_extra_args=True)": Row(
        wrapped(partition, mask_compatible_extra_args=True), KERNEL_ALONE
    ),
    "selective_transform(dtnh)": Row(wrapped(optax.selective_transform, freeze_mask=BIAS), THAWED),
    "MultiSteps(dtnh)": Row(wrapped(multi_steps), MEANS, jit=True),
    "apply_if_finite(dtnh)": Row(wrapped(if_finite), SKIPPED, gradients=poisoned, jit=True),
    "apply_if_finite(chain(dtnh, apply_if_finite(...)))": Row(
        lambda use: if_finite(optax.chain(half(use), if_finite(optax.identity()))),
        SKIPPED,
        gradients=poisoned,
        jit=True,
    ),
    "conditionally_transform(dtnh)": Row(
        wrapped(optax.conditionally_transform, **EVEN), loops.on_even_steps(lambda g: g), jit=True
    ),
    "conditionally_mask(dtnh)": Row(
        wrapped(optax.conditionally_mask, **EVEN),
        loops.on_even_steps(optax.tree.zeros_like),
        jit=True,
    ),
    "flatten(dtnh)": Row(wrapped(optax.flatten), bare),
    "contrib.schedule_free(chain(dtnh, ...))": Row(
        lambda use: contrib.schedule_free(descend(use), 0.1),
        loops.around(lambda tx: contrib.schedule_free(tx, 0.1)),
    ),
    "contrib.mechanize(chain(dtnh, ...))": Row(
        lambda use: contrib.mechanize(descend(use), s_init=0.1),
        loops.around(lambda tx: compiled(contrib.mechanize(tx, s_init=0.1))),
        jit=True,
    ),
    "contrib.sam(chain(dtnh, ...))": Row(sam(opaque=False), loops.sharpness_aware(opaque=False)),
    "contrib.sam(chain(dtnh, ...), opaque_mode=True)": Row(
        sam(opaque=True), loops.sharpness_aware(opaque=True), extra=adversary
    ),
    "lookahead(chain(dtnh, ...))": Row(
        lambda use: optax.lookahead(descend(use), 2, 0.5), LOOKAHEAD, start=HALVES
    ),
    "lookahead(chain(dtnh, ...), reset_state=True)": Row(
        lambda use: optax.lookahead(descend(use), 2, 0.5, reset_state=True), LOOKAHEAD, start=HALVES
    ),
    "contrib.split_real_and_imaginary(dtnh)": Row(
        wrapped(contrib.split_real_and_imaginary),
        loops.split,
        gradients=loops.with_complex_kernel,
        start=COMPLEX,
    ),
}
BEFORE = {
    "chain(clip, dtnh)": before(optax.clip(0.5)),
    "chain(clip_by_block_rms, dtnh)": before(optax.clip_by_block_rms(0.5)),
    "chain(clip_by_global_norm, dtnh)": before(optax.clip_by_global_norm(0.5)),
    "chain(adaptive_grad_clip, dtnh)": before(optax.adaptive_grad_clip(0.1)),
    "chain(centralize, dtnh)": before(optax.centralize()),
    "chain(zero_nans, dtnh)": before(
        optax.zero_nans(), right=each(optax.zero_nans(), reg=lambda use: True), gradients=poisoned
    ),
    "chain(trace, dtnh)": before(optax.trace(0.9)),
    "chain(ema, dtnh)": before(optax.ema(0.9)),
    "chain(add_decayed_weights, dtnh)": before(optax.add_decayed_weights(0.3)),
    "chain(snapshot, dtnh)": before(optax.snapshot("size", optax.tree.norm)),
    "chain(freeze, dtnh)": before(optax.freeze(BIAS), right=THAWED),
    "chain(MultiSteps(identity()), dtnh)": before(SECOND, right=MEANS),
    "chain(scale_by_learning_rate, dtnh)": before(down, right=then(down, nothing)),
    "chain(adam, dtnh)": before(ADAM, right=then(ADAM, nothing)),
}
AFTER = {
    "chain(dtnh, clip_by_global_norm)": after(optax.clip_by_global_norm(0.5)),
    "chain(dtnh, trace)": after(optax.trace(0.9)),
    "chain(dtnh, adam)": after(optax.adam(0.1)),
    "chain(dtnh, add_decayed_weights)": after(
        optax.add_decayed_weights(0.3), right=loops.protected_decay
    ),
    "chain(dtnh, masked(...))": after(optax.masked(optax.trace(0.9), KERNEL)),
    "chain(dtnh, partition(...))": after(optax.partition({True: ADAM, False: down}, KERNEL)),
    "chain(dtnh, freeze)": after(optax.freeze(BIAS), right=THAWED),
    "chain(dtnh, flatten(...))": after(optax.flatten(optax.adam(0.1))),
    "chain(dtnh, MultiSteps(...))": after(SECOND, right=MEANS),
    "chain(dtnh, apply_if_finite(...))": after(
        compiled(if_finite(optax.identity())), right=SKIPPED, gradients=poisoned
    ),
    "chain(dtnh, contrib.schedule_free(...))": after(contrib.schedule_free(down, 0.1)),
    "chain(dtnh, contrib.mechanize(...))": after(compiled(contrib.mechanize(down, s_init=0.1))),
    "chain(dtnh, contrib.sam(...))": after(contrib.sam(down, adversarial)),
    "chain(dtnh, lookahead(...))": after(optax.lookahead(down, 2, 0.5), start=HALVES),
    "chain(dtnh, contrib.reduce_on_plateau)": after(
        compiled(contrib.reduce_on_plateau(patience=1)), extra=value_of_loss
    ),
    "chain(dtnh, polyak_sgd)": after(optax.polyak_sgd(), extra=value_of_loss),
    "chain(dtnh, scale_by_backtracking_linesearch)": after(BACK, **SEARCH),
    "chain(dtnh, scale_by_backtracking_linesearch), value_fn(..., reg_grads)": after(
        BACK, extra=search_loss_beside, gradients=loops.steep
    ),
    "chain(dtnh, scale_by_backtracking_linesearch), value_fn of the sum": after(
        BACK, right=then(BACK, search_loss), extra=search_sum, gradients=loops.steep
    ),
    "chain(dtnh, scale_by_zoom_linesearch)": after(
        searching(optax.scale_by_zoom_linesearch(9)), extra=search_loss, gradients=loops.steep
    ),
    "chain(dtnh, lbfgs)": after(
        compiled(optax.lbfgs(memory_size=2, linesearch=optax.scale_by_zoom_linesearch(9))), **SEARCH
    ),
    "chain(...) without dtnh": Row(lambda _: optax.chain(down), then(down, nothing)),
}
ROWS = AROUND | BEFORE | AFTER


WORKS = "works"
# What the page says, below a table, of other uses.
BELOW = {
    "flatten(dtnh)": {"add_l2_sp, every option": "[trap][flat]"},
    "chain(dtnh, freeze)": {"dtnh, every option, reg_grads": WORKS},  # its mask excludes the leaf
    "chain(scale_by_learning_rate, dtnh)": {"scale_by_adam_dtnh, pair": "[trap][rate]"},
    "chain(dtnh, apply_if_finite(...))": {"add_l2_sp, every option": "[trap][finite]"},
}


def table():
    """The page's rows, each with an outcome for every use; and its errors, by their numbers."""
    page = (ROOT / PAGE).read_text()
    rows = {
        name: dict(zip(COLUMNS, cells, strict=True)) | BELOW.get(name, {})
        for name, *cells in re.findall(r"^\| `(.*?)` \| (.*) \| (.*) \| (.*) \|$", page, re.M)
    }
    errors = dict(re.findall(r"^(\d+)\. `` (.*) ``$", page, re.MULTILINE))
    return rows, {f"raises {n}": said.split(" `` or `` ") for n, said in errors.items()}


OUTCOMES, ERRORS = table()


def test_the_page_has_every_wrapper_and_every_error_and_trap_is_met():
    assert list(OUTCOMES) == list(ROWS)
    assert OUTCOMES.keys() > BELOW.keys()
    page = (ROOT / PAGE).read_text()
    traps = {f"[trap][{n}]": title for n, title in re.findall(r"^\[(\w+)\]: #(.*)$", page, re.M)}
    met = {outcome for row in OUTCOMES.values() for outcome in row.values()}
    assert met == {WORKS, *ERRORS, *traps}
    sections = re.findall(r"^### (.*)$", page, re.MULTILINE)
    assert len(sections) == len(traps) == len(set(traps.values()))


def actual(row, use):
    tx = row.wrap(use)

    def step(t, g, r, state, params):
        return use.update(tx, g, r, state, params, **row.extra(use, t, params))

    return Loop(tx.init, step)


def same(actual, expected, tolerance):
    """Whether two trajectories agree; NaN equals NaN."""
    pairs = zip(*map(jax.tree.leaves, (actual, expected)), strict=True)
    return all(np.allclose(a, b, tolerance, tolerance, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("column", COLUMNS)
def test_the_loop_meets_conflict_and_agreement(column):
    loop = bare(USES[column])
    _, states = loops.trajectory(loop, Row(half, bare))
    rates = [optax.tree.get(state, "conflict") for state in states]
    assert max(rates) > 0
    assert min(rates) < 1


MATRIX = [  # what works after `dtnh` is for CI
    pytest.param(name, use, marks=pytest.mark.slow if name in AFTER and said == WORKS else [])
    for name, cells in OUTCOMES.items()
    for use, said in cells.items()
]


@pytest.mark.parametrize(("name", "column"), MATRIX)
def test_a_wrapper_does_what_the_page_says(name, column):
    row, use, outcome = ROWS[name], USES[column], OUTCOMES[name][column]
    if outcome in ERRORS:
        message = "|".join(map(re.escape, ERRORS[outcome]))
        with pytest.raises((TypeError, ValueError), match=message):
            loops.trajectory(actual(row, use), row)
        return
    all_params, states = loops.trajectory(actual(row, use), row)
    right, _ = loops.trajectory(row.right(use), row._replace(jit=False))
    works = outcome == WORKS
    assert same(all_params, right, tolerance=1e-5 if works else 1e-3) == works
    found = optax.tree.get_all_with_path(states[-1], "conflict")
    assert bool(found) == (outcome != "[trap][missing]")
