"""A fine-tuning step of our ResNet-18, batch normalization in training mode."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.peers import inputs
from benchmarks.peers.contender import FINETUNE_WEIGHTS, MOMENTUM, RATE, Contender, Spec
from benchmarks.peers.inputs import Arrays
from benchmarks.peers.jax_compiled import compiled_with
from optax_dtnh import add_l2_sp, dtnh, value_and_grad_pair
from optax_dtnh.models import ResNet, backbone_mask, load_pretrained, teacher_view
from optax_dtnh.models._layout import dotted, their_layout
from optax_dtnh.models._names import TORCHVISION_RESNET, names_of
from optax_dtnh.regularizers import feature_distance

MAP = "stage4"
Fun = Callable[..., Any]


class Task(NamedTuple):
    """What every method shares.

    Attributes:
      params: Of the student.
      stats: Its running statistics.
      pretrained: Parameters and statistics of the pretrained network.
      losses: `(params, stats, pretrained, images, labels) -> ((loss, reg), stats)`.
    """

    params: Any
    stats: Any
    pretrained: Any
    losses: Fun


def build(spec: Spec) -> Contender:
    """Return a step of `spec["method"]`, `none`, `l2_sp` or `knowdist`, from checkpoints."""
    task = load(spec)
    tx, advance = METHODS[spec["method"]](task)
    batch = inputs.images(spec["batch"], spec["image"], spec["classes"], spec["dtype"])
    rest = (task.pretrained, *map(jnp.asarray, batch))
    # What `init` sees is the anchor.
    carry = task.params, task.stats, tx.init(task.pretrained[0])
    before = named(task.params)
    compiled, about = compiled_with(jax.jit(advance, donate_argnums=(0, 1, 2)), *carry, *rest)

    def run():
        nonlocal carry
        carry = jax.block_until_ready(compiled(*carry, *rest))

    def updates():
        return {name: array - before[name] for name, array in named(carry[0]).items()}

    return Contender(run, updates, about)


def load(spec: Spec) -> Task:
    """Return the task of two checkpoints."""
    student, teacher = (cast(ResNet, load_pretrained(spec[r])) for r in ("student", "teacher"))
    graph, *state = nnx.split(student, nnx.Param, ...)
    frozen, *pretrained = nnx.split(teacher_view(teacher), nnx.Param, ...)
    state, pretrained = jax.tree.map(
        lambda x: x.astype(spec["dtype"]), tuple(map(nnx.as_pure, (state, pretrained)))
    )

    def losses(params, stats, pretrained, images, labels):
        model = nnx.merge(graph, params, stats)
        logits, features = model(images)
        _, theirs = nnx.merge(frozen, *pretrained)(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        reg = feature_distance(features[MAP], theirs[MAP])
        return (loss, reg), nnx.as_pure(nnx.state(model, nnx.Not(nnx.Param)))

    params, stats = state
    return Task(params, stats, pretrained, losses)


def named(params: Any) -> Arrays:
    """Return the parameters under the names and in the layout of torchvision's checkpoints."""
    leaves = [(path, np.asarray(leaf)) for path, leaf in nnx.to_flat_state(params)]
    return {
        names_of(TORCHVISION_RESNET, dotted(path))[0]: their_layout(path, leaf).copy()
        for path, leaf in leaves
    }


# --- Methods: the transformation, and `(params, stats, state, *rest) -> (params, stats, state)`


def none(task: Task) -> tuple[optax.GradientTransformation, Fun]:
    """Return fine-tuning without a regularizer."""
    return _one_gradient(task, optax.identity())


def l2_sp(task: Task) -> tuple[optax.GradientTransformation, Fun]:
    """Return L2-SP: its gradient is formed in the update, there is no second backward pass."""
    return _one_gradient(task, add_l2_sp(FINETUNE_WEIGHTS["l2_sp"], mask=backbone_mask))


def knowdist_sum(task: Task) -> tuple[optax.GradientTransformation, Fun]:
    """Return KnowDist without the rule: one gradient of the weighted sum."""
    tx = _followed(optax.identity())

    def total(params, *rest):
        (loss, reg), stats = task.losses(params, *rest)
        return loss + FINETUNE_WEIGHTS["knowdist"] * reg, stats

    def advance(params, stats, state, *rest):
        grads, stats = jax.grad(total, has_aux=True)(params, stats, *rest)
        return _applied(tx, grads, params, state, stats)

    return tx, advance


def knowdist(task: Task) -> tuple[optax.GradientTransformation, Fun]:
    """Return KnowDist: two gradients from one forward pass."""
    tx = _followed(dtnh(FINETUNE_WEIGHTS["knowdist"], mask=backbone_mask))

    def advance(params, stats, state, *rest):
        (_, stats), pair = value_and_grad_pair(task.losses, True)(params, stats, *rest)
        return _applied(tx, pair, params, state, stats)

    return tx, advance


METHODS = {"none": none, "l2_sp": l2_sp, "knowdist sum": knowdist_sum, "knowdist": knowdist}


def _one_gradient(task: Task, form: Any) -> tuple[optax.GradientTransformation, Fun]:
    tx = _followed(form)

    def loss(params, *rest):
        (loss, _), stats = task.losses(params, *rest)
        return loss, stats

    def advance(params, stats, state, *rest):
        grads, stats = jax.grad(loss, has_aux=True)(params, stats, *rest)
        return _applied(tx, grads, params, state, stats)

    return tx, advance


def _followed(form: Any) -> optax.GradientTransformation:
    return optax.chain(form, optax.sgd(RATE, MOMENTUM))


def _applied(tx: Any, grads: Any, params: Any, state: Any, stats: Any) -> tuple[Any, Any, Any]:
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), stats, state
