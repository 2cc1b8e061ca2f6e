"""DTNH as an optax gradient transformation: the plumbing around the maths of `_rules`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_dtnh._checks import as_transformation, check_floating, check_weight
from optax_dtnh._pair import as_pair
from optax_dtnh._rules import Rule, add_conflict_free, truncate
from optax_dtnh._select import TreeOrFn, groups_of, mask_out, resolve_mask

LEAVE_OUT = (
    "Leave this leaf out with `mask`, or split it off, as with `nnx.split` or `eqx.partition`; "
    "for complex ones there is `optax.contrib.split_real_and_imaginary`."
)


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


def dtnh(
    weight: optax.ScalarOrSchedule,
    *,
    inner: optax.GradientTransformation = optax.identity(),
    mask: TreeOrFn = None,
    rule: Rule | None = None,
    reference: optax.GradientTransformation = optax.identity(),
    labels: TreeOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    """Add the regularizer's gradient without the part that conflicts with the loss's gradient.

    With `g` the loss's gradient, `r` the regularizer's and `m = reference(g)` the protected
    direction (by default `g` itself):

        r' = r - min(<r, m>, 0) / <m, m> * m
        update = inner(g) + weight * r'

    A link of an optax chain, before the optimizer and its learning rate: behind it, the updates
    point downhill and `r` uphill, which cannot be detected with `reg_grads=`.

    The pair comes in one of two spellings: as the updates, first in the chain,
    `tx.update(GradientPair(g, r), state, params)` (or a plain 2-tuple, or the mapping that
    `flax.nnx.Optimizer` makes of it); or as an extra argument,
    `tx.update(g, state, params, reg_grads=r)`, which also passes through wrappers that expect a
    gradient: `optax.apply_if_finite`, `optax.MultiSteps` (which keeps the last `r` only), and with
    `mask_compatible_extra_args=True` `optax.masked` and `optax.partition`. Both trees have the
    parameters' structure and shapes; so has the update, in the dtypes of `inner(g)`.

    What is guaranteed, for `weight >= 0` and `reference` the identity, over the masked-in leaves:
    `<update, g> >= <inner(g), g>`: to first order, the regularizer never slows the loss that `g`
    belongs to below what `inner` does alone. It is a statement about that loss, not about test
    accuracy, and about this update: an optimizer chained after it (momentum, Adam) does not keep
    it, the same optimizer as `inner` does. It holds up to a rounding of `k eps |g| (|inner(g)| +
    weight |r|)`, `eps` that of the coarsest dtype among gradients and update, k = 32 in float32 and
    1 in bfloat16 and float16 (elements above 1e-5). So it means little where
    `weight |r|` exceeds `|inner(g)|` by more than about 1e5 in float32 and 1e2 in bfloat16.

    Singular cases: `g = 0` gives `inner(0) + weight * keep * r`, `r = 0` exactly `inner(g)`,
    opposed gradients `inner(g)` up to rounding, parallel ones `inner(g) + weight * r`. NaN or
    infinity in either gradient, and products beyond float32 (norms of about 1e19), make the update
    NaN or infinite in every leaf that shares the decision: `optax.apply_if_finite` around the
    optimizer that follows skips such a step, but what `inner` or `reference` keep has by then taken
    it in. (Around `dtnh` itself it sees the loss's gradient alone, and keeps a bad one out.)
    Elements below about 1e-19 count as 0 in the products.

    `init` works under `jax.eval_shape`; `update` under `jit`, `vmap`, `scan` and `grad`. On sharded
    gradients the inner products are those of the whole, under `jit` as inside `jax.shard_map`,
    where a leaf's type says over which mesh axes its parts may differ: over those they are added
    up. A leaf that is equal on all devices but not of such a type counts as often as it is held,
    models of their own on every device share one decision, and with `check_vma=False` the types say
    nothing, and every device decides by what it holds.

    Args:
      weight: The regularizer's weight, a number >= 0 or an optax schedule; not checked where it is
        traced.
      inner: The optimizer's direction on the loss's gradient alone. The identity, followed by an
        optimizer in the chain, is the paper's method; `optax.scale_by_adam()` is the decoupled
        form, in which `r` never enters the moments, nor is normalized by them: the weight has to be
        chosen anew. It has to point uphill (not `optax.adam(lr)`: the learning rate follows in the
        chain), sees every leaf, and gets `params` and all extra arguments but `reg_grads`.
      mask: Tree of booleans with the parameters' structure or a prefix of it, or a function of such
        a tree giving one, True = regularized (as in `optax.add_decayed_weights`). Other leaves get
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
      `optax.named_chain` and read `optax.tree.get(state[name], "conflict")`. With
      `optax.inject_hyperparams`, pass `static_args=("mask", "rule", "labels")`: it would call any
      function among them with the step count.

    Raises:
      ValueError: No pair and no `reg_grads`, or both; trees that differ in structure or shape; a
        negative or non-finite number as `weight`; a `mask` without any True.
      TypeError: Integer or complex leaves inside the mask; a `weight` that is no scalar; a `mask`
        that holds no booleans, `labels` that cannot be compared.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from optax_dtnh import GradientPair, dtnh
      >>> tx = optax.chain(dtnh(0.5), optax.sgd(0.1))
      >>> params = jnp.zeros(2)
      >>> pair = GradientPair(loss_grads=jnp.array([2.0, 0.0]), reg_grads=jnp.array([-3.0, 4.0]))
      >>> updates, state = tx.update(pair, tx.init(params), params)
      >>> updates, optax.tree.get(state, "conflict")
      (Array([-0.2, -0.2], dtype=float32), Array(1., dtype=float32))

    Source: Wan et al., [Towards Making Deep Transfer Learning Never
    Hurt](https://arxiv.org/abs/1911.07489), 2019. `inner`, `reference` and `labels` are not in it.
    """
    init, combine = init_and_combine(weight, inner, mask, rule, reference, labels)

    def update(updates, state, params=None, *, reg_grads=None, **extra_args):
        g, r = as_pair(updates, reg_grads, params)
        return combine(g, r, r, state, params, extra_args)

    return optax.GradientTransformationExtraArgs(init, update)


def init_and_combine(
    weight: optax.ScalarOrSchedule,
    inner: optax.GradientTransformation,
    mask: TreeOrFn,
    rule: Rule | None,
    reference: optax.GradientTransformation,
    labels: TreeOrFn,
    metric: Callable[[Any, Any], Any] | None = None,
) -> tuple[optax.TransformInitFn, Callable[..., tuple[optax.Updates, DTNHState]]]:
    """Return `init` and `combine`, the method itself for any source of the gradient `r`.

    `combine(g, r, r_again, state, params, extra_args)` takes `r` twice, see `add_conflict_free`.
    `metric(inner_state, in_mask)` is a diagonal metric, None the ordinary one.
    """
    if not callable(weight):
        check_weight(weight)
    if rule is not None and not callable(rule):
        raise TypeError(
            f"`rule` should be a function such as `optax_dtnh.truncate`, got {rule!r:.60}. "
            "Import the rule and pass it without calling it."
        )
    inner = as_transformation("inner", inner)
    # optax.masked keeps buffers for masked-in leaves only and understands `optax.tree.map_params`.
    in_mask = resolve_mask(mask)
    masked = optax.masked(as_transformation("reference", reference), in_mask)
    reference = optax.with_extra_args_support(masked)

    def init(params):
        zero = jnp.zeros([], jnp.int32)
        return DTNHState(inner.init(params), reference.init(params), zero, zero.astype(jnp.float32))

    def picked(group: list[int], leaves: list) -> list:
        return [leaves[i] for i in group]

    def combine(g, r, r_again, state, params, extra_args):
        regularized = in_mask(g)
        check_floating("loss_grads", mask_out(regularized, g), LEAVE_OUT)
        check_floating("reg_grads", mask_out(regularized, r), LEAVE_OUT)
        updates, inner_state = inner.update(g, state.inner, params, **extra_args)
        m, reference_state = reference.update(g, state.reference, params, **extra_args)
        lam = weight(state.step) if callable(weight) else weight
        check_weight(lam)

        structure = jax.tree.structure(g)
        out, m, r, r_again = map(structure.flatten_up_to, (updates, m, r, r_again))
        p = metric and structure.flatten_up_to(metric(inner_state, regularized))
        groups = groups_of(regularized, labels, g)
        conflicts = jnp.zeros([], jnp.float32)
        for group in groups:
            parts = (picked(group, leaves) for leaves in (out, m, r, r_again))
            chosen = p and picked(group, p)
            summed, conflict = add_conflict_free(rule or truncate, lam, *parts, metric=chosen)
            for i, leaf in zip(group, summed, strict=True):
                out[i] = leaf
            conflicts += conflict.astype(jnp.float32)

        share = conflicts / max(len(groups), 1)
        step = jnp.asarray(optax.safe_increment(state.step))
        return structure.unflatten(out), DTNHState(inner_state, reference_state, step, share)

    return init, combine
