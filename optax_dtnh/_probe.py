"""What a transformation does, tried before training.

A chain is made of closures, so all is found out from its updates and from the names in its state.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from optax_dtnh._checks import as_transformation, check_floating, check_like
from optax_dtnh._masks import check_variables, parts
from optax_dtnh._pair import GradientPair
from optax_dtnh._sums import wide_dtype

NORM = 0.1  # of the direction that is tried: below what chains clip at
COUNTS = [2**i for i in range(17)]  # past a warm-up from 0
WAIT = 128  # steps for an update that is not 0, as of `optax.MultiSteps`
PUT_FIRST = "Put `dtnh` and `add_l2_sp` before the learning rate, and none into `inner`."
ONE_RATE = "End the chain with one learning rate above 0, and put none into `inner`."
FLIPPED = "gives way where it agrees with the loss. Put no learning rate into `reference`."
NO_EFFECT = "WARNING: no effect. Put `dtnh` or `add_l2_sp` first in the chain, with a weight > 0."
LAST_ALONE = "WARNING: `MultiSteps` uses the last ones alone. Use `micro_batches=` instead."
NOT_CHECKED = (
    "swapped gradients, or those of another loss; clipping or averaging before `dtnh`; schedules "
    f"after update {COUNTS[-1]}; a learning rate in `reference` where the step size is unknown"
)
SPELLINGS: dict[str, Callable[[Any, Any], tuple[Any, dict[str, Any]]]] = {
    "pair": lambda g, r: (GradientPair(g, r), {}),
    "reg_grads=": lambda g, r: (g, {"reg_grads": r}),
    "one gradient": lambda g, r: (g, {}),  # noqa: ARG005
}


class Trial(NamedTuple):
    """What is tried, in multiples of a direction `d`; parameters and anchor count from a start."""

    loss: float = 0.0
    reg: float = 0.0
    at: float = 0.0
    anchor: float = 0.0


# A cause is what two updates differ in. So weight decay is in none of them but the last.
LOSS = Trial(loss=1.0), Trial()
BATCH = Trial(reg=1.0), Trial()
ANCHOR = Trial(at=1.0), Trial(at=1.0, anchor=1.0)
DECAY = Trial(at=1.0), Trial()


def check(tx: optax.GradientTransformation, params: Any, **extra_args: Any) -> str:
    """Try a few updates of `tx`, and return a report of what the regularizer does in them.

    The report says which spellings of the gradients `tx` takes, whether the update lowers loss and
    regularizer, whether `add_l2_sp` pulls to its anchor, and how many parameters are regularized.
    `lr * weight` is the share of `r`, or of the distance to the anchor, that one update takes off:
    it should be well below 1, and is unknown if an optimizer rescales `r`. A line with `WARNING`
    wants a change. `tx` runs at made-up parameters and gradients, the same in every call, and at
    the step counts 1, 2, 4, ... 65536.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from optax_dtnh import add_l2_sp, check
      >>> report = check(optax.chain(add_l2_sp(0.1), optax.sgd(0.5)), jnp.ones(3))
      >>> print(report.splitlines()[4])
      add_l2_sp     pulls to the anchor: 3 of 3 parameters, `lr * weight` up to 0.05 (update 1)

    Args:
      tx: The whole optimizer, as it is used in training.
      params: The parameters, or their shapes as from `jax.eval_shape`.
      extra_args: Extra arguments that `tx` needs in `update`, such as `value`.
    """
    as_transformation("tx", tx)
    check_variables(params)
    check_floating("params", params)
    start, d = _made_up(params)
    tried = {name: _updates(tx, spell, extra_args) for name, spell in SPELLINGS.items()}
    refusals = {name: _refusal(updates, start, d) for name, updates in tried.items()}
    name = next((name for name, why in refusals.items() if not why), None)
    if name is None:
        rows = {name: f"refused: {why}" for name, why in refusals.items()}
        return _report(rows | {"update": "WARNING: refused in every spelling"})
    rows = {name: "refused" if why else "taken" for name, why in refusals.items()}
    updates = partial(tried[name], start, d)
    zeros, wrong = _first_update(updates)
    if wrong:
        return _report(rows | {"update": f"WARNING: {wrong}"})
    state = jax.eval_shape(tx.init, start)
    anchors = [x for _, x in optax.tree.get_all_with_path(state, "anchor")]
    findings = _findings(_effects(updates, zeros, d), name, anchors)
    averaged = optax.tree.get_all_with_path(state, "acc_grads")  # of `optax.MultiSteps`
    if averaged and name == "reg_grads=" and name not in findings:
        findings[name] = LAST_ALONE
    return _report(rows | findings)


def _made_up(params: Any) -> tuple[Any, Any]:
    """Return two trees of pseudo-random numbers like the parameters, in one wide dtype."""
    rng, leaves = np.random.default_rng(0), jax.tree.leaves(params)
    scale, dtype = NORM / np.sqrt(max(sum(map(np.size, leaves)), 1)), wide_dtype(*leaves)

    def one(w):
        return jnp.asarray(rng.standard_normal(np.shape(w), np.float32) * scale, dtype)

    return jax.tree.map(one, params), jax.tree.map(one, params)


def _updates(tx: Any, spell: Callable, extra: dict[str, Any]) -> Callable[..., Iterator[Any]]:
    """Return a generator of the updates of a trial, as vectors; `init` is `count` updates ago."""

    @jax.jit
    def init(start, d, trial, count):
        moves = {(): ravel_pytree(d)[0]}  # as `optax.flatten` has it
        moves |= {parts(path): x for path, x in jax.tree.leaves_with_path(d)}
        moves = {path: trial.anchor * x for path, x in moves.items()}
        return jax.tree.map_with_path(partial(_prepared, count, moves), tx.init(start))

    @jax.jit
    def step(state, start, d, trial):
        updates, more = spell(*(optax.tree.scale(x, d) for x in (trial.loss, trial.reg)))
        params = optax.tree.add_scale(start, trial.at, d)
        updates, state = tx.update(updates, state, params, **more, **extra)
        check_like("updates", updates, "params", params, "No transformation took the pair.")
        return ravel_pytree(updates)[0], state

    def updates(start, d, trial, count):
        state = init(start, d, trial, count)
        while True:
            update, state = step(state, start, d, trial)
            yield update

    return updates


def _prepared(count: Any, moves: dict, path: Any, x: Any) -> Any:
    """Return the leaf of a state after `count` updates, and moved if it is of an anchor."""
    names = parts(path)
    whole = jnp.ndim(x) == 0 and jnp.issubdtype(jnp.result_type(x), jnp.integer)
    if whole and names[-1:] in (("count",), ("step",)):
        return jnp.full_like(x, count)
    move = moves.get(names[names.index("anchor") + 1 :]) if "anchor" in names else None
    return x if move is None else (x + move).astype(x.dtype)


def _refusal(updates: Callable, start: Any, d: Any) -> str | None:
    """Return why a spelling is not taken, or None."""
    try:
        jax.eval_shape(lambda *trees: next(updates(*trees, Trial(), 1)), start, d)
    except Exception as error:  # whatever any transformation raises for what it does not take
        return f"{type(error).__name__}: {' '.join(str(error).split()):.350}"
    return None


def _first_update(updates: Callable) -> tuple[int, str]:
    """Return how many updates are 0 before the first that is not, and what is wrong with that."""
    for count in COUNTS[::4]:
        for zeros, update in enumerate(islice(updates(Trial(loss=1.0, reg=1.0), count), WAIT)):
            if np.any(update):
                return zeros, "" if np.all(np.isfinite(update)) else "not finite"
    return WAIT, f"0 in {WAIT} steps"


def _effects(updates: Callable, zeros: int, d: Any) -> Callable[..., Any]:
    """Return a function from a cause to `-<e, d> / <d, d>`, `<e, e>` and the size of each leaf.

    `e` is the change of the update, and `agree * d` is added to the gradient of the loss.
    """
    leaves = [np.ravel(x) for x in jax.tree.leaves(d)]
    ends = np.cumsum([x.size for x in leaves])[:-1]

    def run(trial, scale, count, agree):
        scaled = Trial(*(scale * x for x in trial._replace(loss=trial.loss + agree)))
        return next(islice(updates(scaled, count), zeros, None))

    def effect(cause, scale=1.0, count=1, agree=0.0):
        change = np.subtract(*(np.asarray(run(trial, scale, count, agree)) for trial in cause))
        changes = zip(np.split(change, ends), leaves, strict=True)
        return np.array([(-(e @ x) / (x @ x or 1.0), e @ e, x.size) for e, x in changes]).T

    return effect


def _findings(effect: Callable, spelling: str, anchors: list) -> dict[str, str]:
    lowered = (effect(LOSS, 1.0, count) for count in COUNTS[::4])
    if not next((shares.sum() for shares, squares, _ in lowered if squares.any()), 0.0) > 0:
        return {"loss": f"WARNING: not lowered. {ONE_RATE}"}
    rows = {"loss": "lowered"}
    found = "" if spelling == "one gradient" else _row(effect, BATCH, "lowered", "raised")
    if spelling == "reg_grads=" and not found:
        rows[spelling] = "no effect: nothing in the chain takes it"
    if found or not anchors:
        rows["regularizer"] = found or NO_EFFECT
    if any(map(jax.tree.leaves, anchors)):
        pull = _row(effect, ANCHOR, "pulls to the anchor", "pushes away from the anchor")
        rows["add_l2_sp"] = pull or NO_EFFECT
    if any(x is None for x in anchors):
        pull = _row(effect, DECAY, "with all weight decay, pulls to 0", "pushes away from 0")
        rows["anchor=0.0"] = pull or NO_EFFECT
    return rows


def _row(effect: Callable, cause: tuple[Trial, Trial], good: str, bad: str) -> str:
    """Return in words what a regularizer does, or "" if that is nothing."""
    # Some rules and metrics do nothing without a gradient of the loss: then let it agree.
    tried = ((count, agree) for count in COUNTS[::4] for agree in (0.0, 1.0))
    count, agree = next((t for t in tried if effect(cause, 1.0, *t)[1].any()), (0, 0.0))
    if not count:
        return ""
    shares, squares, sizes = effect(cause, 1.0, count, agree)
    if not shares.sum() > 0:
        return f"WARNING: {bad}. {PUT_FIRST}"
    text = f"{good}: {sizes[squares != 0].sum():,.0f} of {sizes.sum():,.0f} parameters, "
    if not 3.6 < effect(cause, 2.0, count, agree)[1].sum() / squares.sum() < 4.4:
        return f"{text}step size unknown, because what follows rescales it"
    against, along = (effect(cause, 1.0, count, sign)[0].sum() for sign in (-1.0, 1.0))
    if against - along > 0.5 * shares.sum():
        return f"WARNING: {FLIPPED}"
    share, count = max((effect(cause, 1.0, n, agree)[0].max(), -n) for n in COUNTS)
    text += f"`lr * weight` up to {share:.2g} (update {-count})"
    warning = f"WARNING: {text}. Keep it well below 1: from 2 on, the run diverges."
    return text if share < 0.5 else warning


def _report(rows: dict[str, str]) -> str:
    rows = rows | {"not checked": NOT_CHECKED}
    return "\n".join(f"{name:12}  {text}" for name, text in rows.items())
