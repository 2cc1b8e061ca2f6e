"""A small training loop, and what wrappers of `dtnh` should come to in it, formed by hand."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_dtnh import dtnh
from tests.core.helpers import cast, random_tree
from tests.core.uses import alone, as_keyword, as_pair

SHAPES = {"kernel": (3, 2), "bias": (2,), "scale": ()}
STEPS = range(4)
rng = np.random.default_rng(1)
START, *TREES = (cast(random_tree(SHAPES, rng), "float32") for _ in range(1 + 2 * len(STEPS)))
LOSS, REG = TREES[: len(STEPS)], TREES[len(STEPS) :]  # slopes, one tree per step


class Loop(NamedTuple):
    """An optimizer as a training loop sees it: `step(t, g, r, state, params)`."""

    init: Callable
    step: Callable


def bowl(params, slope, curvature):
    """`<slope, w> + curvature |w - start|^2 / 2`."""
    leaves = zip(*map(jax.tree.leaves, (params, slope, START)), strict=True)
    return sum(jnp.sum(s * w + curvature / 2 * (w - o) ** 2) for w, s, o in leaves)


def gradients(t, params, curvature=0.1):
    """Gradients of two bowls; a steep loss makes a line search look for its minimum."""

    def slope(slopes, c):
        return jax.tree.map(lambda s, w, o: s + c * (w - o), slopes[t], params, START)

    return slope(LOSS, curvature), slope(REG, 0.1)


steep = functools.partial(gradients, curvature=4.0)


def poisoned(t, params):
    """NaN in the loss's gradient in step 1, in the regularizer's in step 2."""
    g, r = gradients(t, params)
    bad = {"kernel": jnp.full((3, 2), jnp.nan)}
    return (g | bad if t == 1 else g), (r | bad if t == 2 else r)


def with_complex_kernel(t, params):
    g, r = gradients(t, params)
    return tuple(tree | {"kernel": tree["kernel"] * (1 + 2j)} for tree in (g, r))


def types(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


def quickly(function, **kw):
    """Compiled, without the time to optimize."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **kw)


def trajectory(loop, row):
    """Parameters and states after each step."""
    params, all_params, states = row.start, [], []
    state = loop.init(params)
    step = quickly(loop.step) if row.jit else loop.step
    for t in STEPS:
        g, r = row.gradients(t, fast(params))
        updates, new_state = step(t, g, r, state, params)
        if types(new_state) != types(state):  # what a scan over the steps would say
            jax.lax.scan(lambda _, x, new=new_state: (new, x), state, length=1)
        state, params = new_state, optax.apply_updates(params, updates)
        all_params.append(params)
        states.append(state)
    return all_params, states


def bare(use, tx=None):
    tx = tx or use.factory(0.5)
    return Loop(tx.init, lambda t, g, r, state, params: use.update(tx, g, r, state, params))


def other(**options):
    """The factory with other options, and nothing around it."""
    return lambda use: bare(use, use.factory(**({"weight": 0.5} | options)))


def is_pair(use):
    return use.update is as_pair


def made(step, extra=None, part=lambda tree: tree):
    """From a use to its loop, of `step(inside, t, g, r, state, params)`.

    `inside` is the bare loop. With `extra(params)`, the state is its state and that.
    """

    def make(use):
        inside = bare(use)

        def init(params):
            state = inside.init(part(params))
            return (state, extra(params)) if extra else state

        return Loop(init, functools.partial(step, inside))

    return make


def fast(params):
    """The parameters, or those of `lookahead` at which gradients are taken."""
    return getattr(params, "fast", params)


def then(after, extra):
    """`after` by itself, told the direction."""
    after = optax.with_extra_args_support(after)

    def make(use):
        def step(inside, t, g, r, state, params):
            d, state_1 = inside.step(t, g, r, state[0], fast(params))
            updates, state_2 = after.update(d, state[1], params, **extra(use, t, params))
            return updates, (state_1, state_2)

        return made(step, after.init, fast)(use)

    return make


def around(wrapper):
    """`wrapper` around something that returns the direction, formed beside it."""

    def tell(updates, state, params=None, *, d):
        return d, state

    told = wrapper(optax.GradientTransformationExtraArgs(lambda params: (), tell))

    def step(inside, t, g, r, state, params):
        d, state_1 = inside.step(t, g, r, state[0], params)
        updates, state_2 = told.update(g, state[1], params, d=optax.tree.scale(-0.1, d))
        return updates, (state_1, state_2)

    return made(step, told.init)


def each(before, reg=is_pair):
    """`before` by itself on the loss's gradient and, where `reg`, on the regularizer's."""

    def make(use):
        def step(inside, t, g, r, state, params):
            state, (state_g, state_r) = state
            g, state_g = before.update(g, state_g, params)
            if reg(use):
                r, state_r = before.update(r, state_r, params)
            updates, state = inside.step(t, g, r, state, params)
            return updates, (state, (state_g, state_r))

        return made(step, lambda params: (before.init(params), before.init(params)))(use)

    return make


def on_form(there, back):
    """The factory on the trees in another form; `back(d, g)` gives the updates of all leaves."""

    def step(inside, t, g, r, state, params):
        d, state = inside.step(t, there(g), there(r), state, there(params))
        return back(d, g), state

    return made(step, part=there)


def on(keys, otherwise):
    """The factory on some of the leaves; `otherwise` makes the updates of the others."""
    return on_form(
        lambda tree: {key: tree[key] for key in keys}, lambda d, g: jax.tree.map(otherwise, g) | d
    )


def parts(tree):
    return tree | {"kernel": {"real": tree["kernel"].real, "imag": tree["kernel"].imag}}


split = on_form(parts, lambda d, g: d | {"kernel": d["kernel"]["real"] + 1j * d["kernel"]["imag"]})


def mean(x, y):
    return jax.tree.map(lambda a, b: (a + b) / 2, x, y)


def on_means(inside, t, g, r, state, params):
    state, kept = state
    if t % 2 == 0:
        return optax.tree.zeros_like(g), (state, (g, r))
    d, state = inside.step(t, mean(kept[0], g), mean(kept[1], r), state, params)
    return d, (state, kept)


every_other_step = made(on_means, lambda params: (params, params))


def skipping(use):
    """Zeros where a gradient is NaN, and the same state where the loss's is."""

    def step(inside, t, g, r, state, params):
        d, new_state = inside.step(t, g, r, state, params)
        skipped = (1,) if use.update is alone else (1, 2)
        return optax.tree.zeros_like(g) if t in skipped else d, state if t == 1 else new_state

    return made(step)(use)


def on_even_steps(otherwise):
    def step(inside, t, g, r, state, params):
        return (otherwise(g), state) if t % 2 else inside.step(t, g, r, state, params)

    return made(step)


def sharpness_aware(opaque):
    def climb(g):
        return optax.tree.scale(0.2 / optax.tree.norm(g), g)

    def step(inside, t, g, r, state, params):
        state, kept = state
        if opaque:
            g, r = gradients(t, optax.apply_updates(params, climb(g)))
            kept = params
        elif t % 2 == 0:
            return climb(g), (state, params)
        d, state = inside.step(t, g, r, state, kept)
        back = jax.tree.map(lambda x, w, k: k - w - 0.1 * x, d, params, kept)
        return back, (state, kept)

    return made(step, lambda params: params)


def protected_decay(use):
    """Decay as a part of what is protected."""
    if use.update is alone:
        tx = dtnh(0.3, inner=use.factory(0.5))
        return Loop(tx.init, lambda t, g, r, s, p: as_keyword(tx, g, p, s, p))

    def step(inside, t, g, r, state, params):
        with_decay = jax.tree.map(lambda x, w: x + 0.3 / 0.5 * w, r, params)
        return inside.step(t, g, with_decay, state, params)

    return made(step)(use)
