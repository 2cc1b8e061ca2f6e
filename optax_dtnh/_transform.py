"""DTNH as an optax gradient transformation: the plumbing around the maths of `_rules`."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from optax_dtnh._checks import check_floating, check_like, check_weight
from optax_dtnh._rules import Rule, coefficients, direction, truncate, widen

Tree = Any
MaskOrFn = Tree | Callable[[Tree], Tree] | None
LabelsOrFn = Tree | Callable[[Tree], Tree] | None

MISSING = (
    "`reg_grads` is missing: got updates of type {}, not a pair. Call "
    "`tx.update(GradientPair(loss_grads, reg_grads), state, params)` or "
    "`tx.update(loss_grads, state, params, reg_grads=reg_grads)`."
)
BOTH = (
    "`reg_grads` should be given once, got a pair as updates and `reg_grads=` as well. "
    "Pass the pair alone, or the loss gradient as updates with `reg_grads=`."
)


class GradientPair(NamedTuple):
    """The two gradients of one step, trees like the parameters: what `dtnh` takes as its updates.

    A plain 2-tuple in this order is accepted as well.
    """

    loss_grads: Tree
    reg_grads: Tree


class DTNHState(NamedTuple):
    """State of `dtnh`.

    Attributes:
      inner: State of `inner`.
      reference: State of `reference`.
      step: Updates made so far, an int32 scalar: what a schedule for `weight` is called with.
      conflict: Diagnostic, a float32 scalar: 1 if `<r, m> < 0` in the last update, else 0; with
        `labels`, the share of the labels in conflict. Nothing depends on it.
    """

    inner: optax.OptState
    reference: optax.OptState
    step: jax.Array
    conflict: jax.Array


class TransformPairState(NamedTuple):
    """State of `transform_pair`: one state per member of the pair."""

    loss: optax.OptState
    reg: optax.OptState


def dtnh(
    weight: optax.ScalarOrSchedule,
    *,
    inner: optax.GradientTransformation = optax.identity(),
    mask: MaskOrFn = None,
    rule: Rule | None = None,
    reference: optax.GradientTransformation = optax.identity(),
    labels: LabelsOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    """Add the regularizer's gradient without the part that conflicts with the loss's gradient.

    With `g` the loss's gradient, `r` the regularizer's and `m = reference(g)` the protected
    direction (by default `g` itself)::

        r' = r - min(<r, m>, 0) / <m, m> * m
        update = inner(g) + weight * r'

    The pair comes in one of two spellings: as the updates,
    `tx.update(GradientPair(g, r), state, params)` (or a plain 2-tuple, or the mapping that
    `flax.nnx.Optimizer` makes of it), or as an extra argument,
    `tx.update(g, state, params, reg_grads=r)`. Both trees have the parameters' structure and
    shapes; the update has them too, in the dtypes of `inner(g)`. The pair spelling comes first in
    an `optax.chain` and does not pass through wrappers that expect a gradient (`optax.masked`,
    `optax.MultiSteps`, `optax.apply_if_finite`); `reg_grads=` does.

    What is guaranteed, for `weight >= 0` and `reference` the identity: `<update, g> >= <inner(g),
    g>` over the masked-in leaves: to first order, the regularizer never slows the loss that `g`
    belongs to below what `inner` does alone. It is a statement about that loss, not about test
    accuracy, and about this update: an optimizer chained after it (momentum, Adam) does not keep
    it, the same optimizer as `inner` does. It holds up to a rounding of `8 eps |g| (|g| + weight
    |r|)` (`eps` of the update's dtype; 1 instead of 8 in bfloat16 and float16), so it means little
    beyond `weight * |r| / |g|` of about 1e5 in float32 and 1e2 in bfloat16.

    Zero and singular cases: `g = 0` gives `weight * r`, `r = 0` gives `inner(g)` exactly, opposed
    gradients give `inner(g)` up to rounding, parallel ones the plain sum. NaN or infinity in either
    gradient, and norms beyond about 1e19 in float32, make the update NaN: `optax.apply_if_finite`
    around the optimizer that follows in the chain skips such a step. (Around `dtnh` itself it sees
    the loss's gradient alone, and keeps a bad one out of `reference`.) Norms below about 1e-19 act
    as 0.

    `init` works under `jax.eval_shape`, `update` under `jit`, `vmap` and `scan`.

    Args:
      weight: The regularizer's weight, a number >= 0 or an optax schedule.
      inner: The optimizer's direction on the loss's gradient alone. The identity, followed by an
        optimizer in the chain, is the paper's method; `optax.scale_by_adam()` is the decoupled form,
        in which `r` never enters the moments. It sees every leaf, and gets `params` and all extra
        arguments but `reg_grads`.
      mask: Tree of booleans with the parameters' structure or a prefix of it, or a function of the
        updates giving one, True = regularized (as in `optax.add_decayed_weights`). Other leaves get
        `inner(g)` bit for bit and stay out of every inner product: mask a new head out.
      rule: `rule(dot, ref_sq, reg_sq) -> (keep, along)`; None means `truncate`.
      reference: Transformation of the loss's gradient whose output is `m`. With
        `optax.ema(0.99, accumulator_dtype=jnp.float32)` a smoothed gradient is protected: then only
        `<r', m> >= 0` holds, but small batches no longer hide the conflict.
      labels: Tree of labels with the parameters' structure or a prefix of it, or a function giving
        one (as in `optax.partition`): one decision per label, instead of one for the whole tree.
        `per_leaf` decides for every leaf apart.

    Returns:
      A `GradientTransformationExtraArgs` with a `DTNHState`. Read its diagnostic with
      `optax.tree.get(state, "conflict")`; with two members in one chain, name them with
      `optax.named_chain` and read `state[name].conflict`.

    Raises:
      ValueError: No pair and no `reg_grads`, or both; trees that differ in structure or shape; a
        negative or non-finite number as `weight`; a `mask` without any True.
      TypeError: Integer or complex leaves inside the mask; a `weight` that is no number.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from optax_dtnh import GradientPair, dtnh
      >>> tx = optax.chain(dtnh(0.5), optax.sgd(0.1))
      >>> params = jnp.zeros(2)
      >>> pair = GradientPair(loss_grads=jnp.array([2.0, 0.0]), reg_grads=jnp.array([-3.0, 4.0]))
      >>> updates, state = tx.update(pair, tx.init(params), params)
      >>> updates, optax.tree.get(state, "conflict")
      (Array([-0.2, -0.2], dtype=float32), Array(1., dtype=float32))

    Source: Wan et al., `Towards Making Deep Transfer Learning Never Hurt
    <https://arxiv.org/abs/1911.07489>`_, 2019. `inner`, `reference` and `labels` are not in it.
    """
    init, combine = conflict_free(weight, inner, mask, rule, reference, labels)

    def update(updates, state, params=None, *, reg_grads=None, **extra_args):
        g, r = as_pair(updates, reg_grads, params)
        return combine(g, r, r, state, params, extra_args)

    return optax.GradientTransformationExtraArgs(init, update)


def transform_pair(
    loss: optax.GradientTransformation = optax.identity(),
    reg: optax.GradientTransformation = optax.identity(),
) -> optax.GradientTransformationExtraArgs:
    """Send each member of a gradient pair through a transformation of its own.

    `(g, r) -> (loss(g), reg(r))`, for use before `dtnh` in a chain: separate momentum buffers, or
    clipping one gradient without the other.

    Args:
      loss: Transformation of the loss's gradient.
      reg: Transformation of the regularizer's gradient. Both see `params` and extra arguments.

    Returns:
      A `GradientTransformationExtraArgs` from a `GradientPair` (or 2-tuple) to a `GradientPair`,
      with a `TransformPairState`.

    Raises:
      ValueError: The updates are no pair, or `reg_grads=` is given as well: a transformation cannot
        change an extra argument, so only the pair spelling works here.

    Example:
      >>> tx = optax.chain(transform_pair(reg=optax.clip_by_global_norm(1.0)), dtnh(0.5))
      >>> pair = GradientPair(jnp.array([1.0, 0.0]), jnp.array([0.0, 4.0]))
      >>> tx.update(pair, tx.init(jnp.zeros(2)))[0]
      Array([1. , 0.5], dtype=float32)
    """
    loss, reg = optax.with_extra_args_support(loss), optax.with_extra_args_support(reg)

    def init(params):
        return TransformPairState(loss.init(params), reg.init(params))

    def update(updates, state, params=None, *, reg_grads=None, **extra_args):
        if reg_grads is not None:
            raise ValueError(
                "`reg_grads` should not be given to `transform_pair`, got one. It cannot change an "
                "extra argument: pass `GradientPair(loss_grads, reg_grads)` as the updates."
            )
        g, r = as_pair(updates, None, params)
        g, loss_state = loss.update(g, state.loss, params, **extra_args)
        r, reg_state = reg.update(r, state.reg, params, **extra_args)
        return GradientPair(g, r), TransformPairState(loss_state, reg_state)

    return optax.GradientTransformationExtraArgs(init, update)


def per_leaf(tree: Tree) -> Tree:
    """Label every leaf of `tree` apart: `dtnh(weight, labels=per_leaf)` decides leaf by leaf.

    Stricter than one decision for the whole tree (a sum of non-negative inner products is
    non-negative), and noisier on small leaves.

    Example:
      >>> per_leaf({"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)})
      {'bias': 0, 'kernel': 1}
    """
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, range(len(leaves)))


def conflict_free(
    weight: optax.ScalarOrSchedule,
    inner: optax.GradientTransformation,
    mask: MaskOrFn,
    rule: Rule | None,
    reference: optax.GradientTransformation,
    labels: LabelsOrFn,
) -> tuple[Callable[[Tree], DTNHState], Callable[..., tuple[Tree, DTNHState]]]:
    """Return `init` and `combine`, the method itself for any source of the gradient `r`.

    `combine(g, r, r_again, state, params, extra_args)` takes `r` twice, for the inner products and
    for the update: a caller that forms it in place spells it in two ways, or XLA would store it.
    """
    check_weight(weight)
    inner = optax.with_extra_args_support(inner)
    # optax.masked keeps buffers for masked-in leaves only and understands `optax.tree.map_params`.
    in_mask = resolve_mask(mask)
    reference = optax.with_extra_args_support(optax.masked(reference, in_mask))

    def init(params):
        zero = jnp.zeros([], jnp.int32)
        return DTNHState(
            inner.init(params), reference.init(params), zero, zero.astype(jnp.float32)
        )

    def combine(g, r, r_again, state, params, extra_args):
        regularized = in_mask(g)
        check_floating("loss_grads", mask_out(regularized, g))
        check_floating("reg_grads", mask_out(regularized, r))
        updates, inner_state = inner.update(g, state.inner, params, **extra_args)
        m, reference_state = reference.update(g, state.reference, params, **extra_args)
        lam = weight(state.step) if callable(weight) else weight

        structure = jax.tree.structure(g)
        out, m, r, r_again = map(structure.flatten_up_to, (updates, m, r, r_again))
        conflicts = []
        for group in _groups(jax.tree.leaves(regularized), resolve_labels(labels, g)):
            keep, c, dot = coefficients(
                rule or truncate, [r[i] for i in group], [m[i] for i in group]
            )
            for i in group:
                step = widen(out[i]) + lam * direction(keep, c, r_again[i], m[i])
                out[i] = step.astype(jnp.result_type(out[i]))
            conflicts.append((dot < 0).astype(jnp.float32))

        new_state = DTNHState(
            inner_state,
            reference_state,
            optax.safe_increment(state.step),
            sum(conflicts, start=jnp.zeros([], jnp.float32)) / max(len(conflicts), 1),
        )
        return structure.unflatten(out), new_state

    return init, combine


def as_pair(updates: Tree, reg_grads: Tree | None, params: Tree | None) -> GradientPair:
    """Return the checked pair from either spelling."""
    if reg_grads is not None:
        if _looks_like_pair(updates, reg_grads):
            raise ValueError(BOTH)
        pair = GradientPair(updates, reg_grads)
    else:
        pair = _unpack(updates, params)
    check_like("reg_grads", pair.reg_grads, "loss_grads", pair.loss_grads)
    if params is not None:
        check_like("loss_grads", pair.loss_grads, "params", params)
    return pair


def mask_out(mask: Tree, tree: Tree) -> Tree:
    """Return `tree` with an empty node in place of every leaf that `mask` leaves out."""
    return jax.tree.map(lambda keep, leaf: leaf if keep else optax.MaskedNode(), mask, tree)


def resolve_mask(mask: MaskOrFn) -> Callable[[Tree], Tree]:
    """Return a function from a tree to one boolean per leaf of it, all True for no mask."""
    if not callable(mask):
        _check_mask(mask)

    def in_mask(tree):
        chosen = mask(tree) if callable(mask) else mask
        _check_mask(chosen)
        return _per_leaf_of("mask", True if chosen is None else chosen, tree)

    return in_mask


def resolve_labels(labels: LabelsOrFn, tree: Tree) -> list[Hashable]:
    """Return the label of every leaf of `tree`, one and the same for no labels."""
    chosen = labels(tree) if callable(labels) else labels
    return jax.tree.leaves(_per_leaf_of("labels", 0 if chosen is None else chosen, tree))


def _per_leaf_of(name: str, prefix: Tree, tree: Tree) -> Tree:
    try:
        return jax.tree.map(lambda x, below: jax.tree.map(lambda _: x, below), prefix, tree)
    except ValueError as error:
        raise ValueError(
            f"`{name}` should have the structure of the updates or a prefix of it, got {prefix!r}. "
            f"Give one entry per leaf or per subtree, or a function of the updates. ({error})"
        ) from error


def _check_mask(mask: Tree) -> None:
    leaves = [] if mask is None else jax.tree.leaves(mask)
    for leaf in leaves:
        if not isinstance(leaf, (bool, np.bool_)):
            raise TypeError(
                f"`mask` should hold booleans, got {leaf!r}. True means regularized, False left out."
            )
    if mask is not None and not any(leaves):
        raise ValueError(
            f"`mask` should be True for at least one leaf, got {mask!r}. Nothing would be "
            "regularized: True means regularized, False left out."
        )


def _groups(in_mask: list[bool], labels: list[Hashable]) -> list[list[int]]:
    groups = defaultdict(list)
    for i, (regularized, label) in enumerate(zip(in_mask, labels, strict=True)):
        if regularized:
            groups[label].append(i)
    return list(groups.values())


def _looks_like_pair(updates: Tree, reg_grads: Tree) -> bool:
    members = _members(updates)
    if isinstance(updates, GradientPair) or members is None:
        return members is not None
    structure = jax.tree.structure(reg_grads)
    return jax.tree.structure(members[0]) == structure != jax.tree.structure(updates)


def _unpack(updates: Tree, params: Tree | None) -> GradientPair:
    members = _members(updates)
    shaped_like_params = params is not None and (
        jax.tree.structure(updates) == jax.tree.structure(params)
    )
    if members is None or shaped_like_params:
        raise ValueError(MISSING.format(type(updates).__name__))
    return GradientPair(*members)


def _members(updates: Tree) -> tuple[Tree, Tree] | None:
    """Return the two members of anything that spells a pair, else None."""
    if type(updates) in (tuple, GradientPair) and len(updates) == 2:
        return cast(tuple, tuple(updates))
    if isinstance(updates, Mapping):  # flax.nnx.Optimizer turns tuples into mappings
        for keys in (GradientPair._fields, (0, 1)):
            if set(updates) == set(keys):
                return updates[keys[0]], updates[keys[1]]
    return None
