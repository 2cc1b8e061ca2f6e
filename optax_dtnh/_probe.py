"""What a transformation does, tried before training.

A chain is made of closures, so all is found out from its updates and from the names in its state.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_dtnh._checks import check_floating, check_like
from optax_dtnh._pair import THESE_PARAMS, GradientPair
from optax_dtnh._paths import parts
from optax_dtnh._sums import widen

NORM = 0.1  # of a made-up gradient: below what chains clip at
COUNTS = [2**i for i in range(17)]  # past a warm-up from 0
WAIT = 128  # steps for an update that is not 0, as of `optax.MultiSteps`
LARGE = 0.5  # share of a displacement that one update takes off
RAISED = "raised. Put `dtnh` before the learning rate, and no learning rate into `inner`."
PUSHED = "pushes away from the anchor. Put it before the learning rate."
NO_EFFECT = "no effect. Put a `dtnh` or `add_l2_sp` of a weight above 0 first in the chain."
UNSEEN = (
    "whether the gradients are swapped or belong to another loss, what clips or averages them "
    f"before `dtnh`, and schedules after update {COUNTS[-1]}"
)
FORMS: dict[str, Callable[[Any, Any], tuple[Any, dict[str, Any]]]] = {
    "pair": lambda g, r: (GradientPair(g, r), {}),
    "reg_grads=": lambda g, r: (g, {"reg_grads": r}),
    "one gradient": lambda g, r: (g, {}),  # noqa: ARG005
}


Run = Callable[..., Any]
Difference = Callable[[float, bool, int], tuple[Any, Any]]


def check(
    tx: optax.GradientTransformation,
    params: Any,
    pair: GradientPair | None = None,
    **extra_args: Any,
) -> str:
    """Try a few updates of `tx`, and say what the regularizer does in them.

    The report says which spellings of the gradients `tx` takes, whether the update lowers the loss
    and the regularizer, whether `add_l2_sp` pulls to its anchor, how many parameters are
    regularized, and how large a step is: the share of `r`, or of the distance to the anchor, that
    one update takes off. The share is `lr * weight` if no optimizer rescales `r`; it should be well
    below 1, and at 2 the run diverges. A line with `WARNING` wants a change.

    `tx.init` and `tx.update` run at made-up, deterministic gradients and displacements, on copies.
    To look past a warm-up, the step counts in the state are set to 1, 2, 4, ... 65536.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from optax_dtnh import add_l2_sp, check
      >>> report = check(optax.chain(optax.adamw(1e-3), add_l2_sp(0.1)), jnp.ones(3))
      >>> print(report.splitlines()[4])
      add_l2_sp     WARNING: pushes away from the anchor. Put it before the learning rate.

    Args:
      tx: The whole optimizer, as it is used in training.
      params: The parameters, or others of the same shapes.
      pair: Gradients to use in place of the made-up ones.
      extra_args: Extra arguments that `tx` needs in `update`, such as `value`.

    Returns:
      The report, to be printed.

    Raises:
      ValueError: `pair` has other shapes than `params`, or is 0.
      TypeError: A leaf of `params` is not real floating point.
    """
    check_floating("params", params)
    params = jax.tree.map(jnp.asarray, params)
    g, r = _made_up(params) if pair is None else _checked(pair, params)
    refusals = {form: _refusal(tx, form, params, g, r, extra_args) for form in FORMS}
    rows = {form: f"refused: {why}" if why else "taken" for form, why in refusals.items()}
    form = next((form for form, why in refusals.items() if not why), None)
    run = form and _runner(tx, FORMS[form], params, GradientPair(g, r), extra_args)
    if not run:
        what = f"0 in {WAIT} steps" if form else "refused in every spelling"
        return _report(rows | {"update": f"WARNING: {what}"})
    zeros = jax.tree.map(jnp.zeros_like, params)
    down = _share_taken(_minus(run(g, zeros), run(zeros, zeros)), g)[0] > 0
    rows["loss"] = "lowered" if down else "WARNING: not lowered. Put the learning rate last."
    anchors = optax.tree.get_all_with_path(tx.init(params), "anchor")
    found = "" if form == "one gradient" else _row(_of_batch(run, r), "lowered", RAISED)
    if form == "reg_grads=" and not found:
        rows[form] = "dropped: nothing in the chain takes it"
    if found or not anchors:
        rows["regularizer"] = found or f"WARNING: {NO_EFFECT}"
    if anchors:
        pull = _row(_of_anchor(run, params), "pulls to the anchor", PUSHED)
        rows["add_l2_sp"] = pull or f"WARNING: {NO_EFFECT}"
    return _report(rows)


def _made_up(params: Any) -> GradientPair:
    """Return a pair of pseudo-random gradients."""
    rng, size = np.random.default_rng(0), optax.tree.size(params)

    def one(w):
        draws = rng.standard_normal(jnp.shape(w), np.float32) * (NORM / np.sqrt(max(size, 1)))
        return jnp.asarray(draws, jnp.result_type(w))

    return GradientPair(jax.tree.map(one, params), jax.tree.map(one, params))


def _checked(pair: GradientPair, params: Any) -> GradientPair:
    for name, grads in zip(GradientPair._fields, pair, strict=True):
        check_like(name, grads, "params", params, THESE_PARAMS)
        if not _norm(grads) > 0:
            raise ValueError(
                f"`pair` should hold gradients that are not 0, got {name} of norm {_norm(grads)}. "
                "At the start, a distance to the pretrained network is 0: leave `pair` out, or "
                "take it after some steps."
            )
    return GradientPair(*pair)


def _refusal(
    tx: Any, form: str, params: Any, g: Any, r: Any, extra_args: dict[str, Any]
) -> str | None:
    """Return why `tx` does not take this spelling, or None."""

    def update(g, r, params):
        updates, extra = FORMS[form](g, r)
        return tx.update(updates, tx.init(params), params, **extra, **extra_args)[0]

    try:
        updates = jax.eval_shape(update, g, r, params)
        check_like("updates", updates, "params", params, "No transformation took the pair.")
    except Exception as error:  # whatever any transformation raises for what it does not take
        ours = str(error).startswith("`")
        return (
            str(error).split(". ")[0]
            if ours
            else f"{type(error).__name__} of another transformation"
        )
    return None


def _runner(tx: Any, form: Callable, params: Any, pair: GradientPair, extra: Any) -> Run | None:
    """Return `run(g, r, at, count, anchor)`, the update at `at` after `init(params)`, or None.

    It takes as many steps as the first update that is not 0; None stands for too many.
    """

    @jax.jit
    def step(g, r, state, params):
        updates, more = form(g, r)
        return tx.update(updates, state, params, **more, **extra)

    @jax.jit
    def init(params, anchor, count):
        return _prepared(tx.init(params), tx.init(anchor), count)

    def run(g, r, at=params, count=0, anchor=params):
        state, updates = init(params, anchor, count or first), None
        for _ in range(steps):
            updates, state = step(g, r, state, at)
        return updates

    for first in COUNTS[::4]:
        state = init(params, params, first)
        for steps in range(1, WAIT + 1):  # noqa: B007, `run` reads it
            updates, state = step(*pair, state, params)
            if _norm(updates) > 0:
                return run
    return None


def _prepared(state: Any, other: Any, count: Any) -> Any:
    """Return `state` with the anchors of `other`, and after that many updates for a schedule."""

    def one(path, x, y):
        names = parts(path)
        is_count = jnp.ndim(x) == 0 and jnp.issubdtype(jnp.result_type(x), jnp.integer)
        if is_count and names[-1:] in (("count",), ("step",)):
            return jnp.full_like(x, count)
        return y if "anchor" in names else x

    return jax.tree.map_with_path(one, state, other)


def _of_batch(run: Run, r: Any) -> Difference:
    """Return what the update owes to the gradient `scale * r`, next to that gradient.

    The gradient of the loss is 0, or agrees with it.
    """

    def difference(scale, agreeing, count):
        scaled, zeros = optax.tree.scale(scale, r), jax.tree.map(jnp.zeros_like, r)
        g = scaled if agreeing else zeros
        return _minus(*(run(g, r, count=count) for r in (scaled, zeros))), scaled

    return difference


def _of_anchor(run: Run, start: Any) -> Difference:
    """Return what the update owes to a displacement from the anchor.

    Both updates are at the same parameters, with the anchor elsewhere and there. So weight decay is
    in neither their difference nor in the pull.
    """

    def displace(w, direction):  # by what the dtype can hold
        return direction + jnp.sign(direction) * (8 * jnp.finfo(w.dtype).eps * jnp.abs(w))

    displacement = jax.tree.map(displace, start, _made_up(start).reg_grads)

    def difference(scale, agreeing, count):
        at = jax.tree.map(lambda w, x: w + (scale * x).astype(w.dtype), start, displacement)
        r = _minus(at, start)
        zeros = jax.tree.map(jnp.zeros_like, start)
        g = jax.tree.map(lambda x, w: x.astype(w.dtype), r, start) if agreeing else zeros
        return _minus(*(run(g, zeros, at, count, anchor) for anchor in (start, at))), r

    return difference


def _row(difference: Difference, good: str, bad: str) -> str:
    """Return in words what a regularizer does, or "" if that is nothing."""
    trial = _first_effect(difference)
    if trial is None:
        return ""
    effect, r, agreeing, count = trial
    if _share_taken(effect, r)[0] < 0:
        return f"WARNING: {bad}"
    moved = sum(x.size for x in jax.tree.leaves(effect) if jnp.any(x != 0))
    some = f"{good}, {moved:,} of {optax.tree.size(effect):,} parameters"
    if not 1.9 < _norm(difference(2.0, agreeing, count)[0]) / _norm(effect) < 2.1:
        return f"{some}; what follows rescales it, so its step size is unknown"
    shares = {n: _share_taken(*difference(1.0, agreeing, n))[1] for n in COUNTS}
    count = max(shares, key=lambda n: shares[n])
    text = f"{some}; an update takes off up to {shares[count]:.2g} of it (update {count})"
    if shares[count] < LARGE:
        return text
    return f"WARNING: {text}: `lr * weight` should be well below 1, and diverges from 2"


def _first_effect(difference: Difference) -> tuple[Any, Any, bool, int] | None:
    for count in COUNTS[::4]:
        # Some rules and metrics do nothing without a gradient of the loss: then let it agree.
        for agreeing in (False, True):
            effect, r = difference(1.0, agreeing, count)
            if _norm(effect) > 0:
                return effect, r, agreeing, count
    return None


def _share_taken(effect: Any, r: Any) -> tuple[float, float]:
    """Return the share of `r` that the effect takes off: of all leaves that move, and at most."""
    pairs = zip(*map(jax.tree.leaves, (effect, r)), strict=True)
    moving = [(e, widen(x)) for e, x in pairs if jnp.any(e != 0)]
    taken = [(-float(jnp.vdot(e, x)), float(jnp.vdot(x, x))) for e, x in moving]
    total = sum(t for t, _ in taken) / max(sum(n for _, n in taken), 1e-30)
    return total, max((t / n for t, n in taken), default=0.0)


def _minus(x: Any, y: Any) -> Any:
    return jax.tree.map(lambda a, b: widen(a) - widen(b), x, y)


def _norm(tree: Any) -> float:
    return float(optax.tree.norm(jax.tree.map(widen, tree)))


def _report(rows: dict[str, str]) -> str:
    return "\n".join(f"{name:12}  {text}" for name, text in (rows | {"unknown": UNSEEN}).items())
