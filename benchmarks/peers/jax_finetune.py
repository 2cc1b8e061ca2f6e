"""A fine-tuning step of our ResNet-18, batch normalization in training mode."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.peers import inputs
from benchmarks.peers.contender import FINETUNE_WEIGHTS, MOMENTUM, RATE, Contender, Spec
from benchmarks.peers.inputs import Arrays
from benchmarks.peers.jax_compiled import training
from optax_dtnh import add_l2_sp, dtnh, value_and_grad_pair
from optax_dtnh.models import ResNet, backbone_mask, load_pretrained, teacher_view
from optax_dtnh.models._names import TORCHVISION_RESNET, dotted, names_of, their_layout
from optax_dtnh.regularizers import feature_distance

MAP = "stage4"
Fun = Callable[..., Any]


def build(spec: Spec) -> Contender:
    """Return a step of `spec["method"]`, one of `METHODS`, from checkpoints."""
    params, stats, pretrained, losses = load(spec)
    form, gradient = METHODS[spec["method"]]
    tx, gradient = optax.chain(form, optax.sgd(RATE, MOMENTUM)), gradient(losses)

    def advance(params, stats, state, *rest):
        grads, stats = gradient(params, stats, *rest)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), stats, state

    batch = inputs.images(spec["batch"], spec["image"], spec["classes"], spec["dtype"])
    anchored = tx.init(pretrained[0])  # what `init` sees is the anchor
    rest = [pretrained, *map(jnp.asarray, batch)]
    return training(advance, (params, stats, anchored), rest, named)


def load(spec: Spec) -> tuple[Any, Any, Any, Fun]:
    """Return parameters and statistics of the student, those of the pretrained network, and losses.

    `losses(params, stats, pretrained, images, labels) -> ((loss, reg), stats)`.
    """
    student, teacher = (cast(ResNet, load_pretrained(spec[r])) for r in ("student", "teacher"))
    graph, *state = nnx.split(student, nnx.Param, ...)
    frozen, *pretrained = nnx.split(teacher_view(teacher), nnx.Param, ...)
    (params, stats), pretrained = jax.tree.map(
        lambda x: x.astype(spec["dtype"]), tuple(map(nnx.as_pure, (state, pretrained)))
    )

    def losses(params, stats, pretrained, images, labels):
        model = nnx.merge(graph, params, stats)
        logits, features = model(images)
        _, theirs = nnx.merge(frozen, *pretrained)(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        reg = feature_distance(features[MAP], theirs[MAP])
        return (loss, reg), nnx.as_pure(nnx.state(model, nnx.Not(nnx.Param)))

    return params, stats, pretrained, losses


def named(params: Any) -> Arrays:
    """Return the parameters under the names and in the layout of torchvision's checkpoints."""
    leaves = [(path, np.asarray(leaf)) for path, leaf in nnx.to_flat_state(params)]
    return {
        names_of(TORCHVISION_RESNET, dotted(path))[0]: their_layout(path, leaf).copy()
        for path, leaf in leaves
    }


def of_sum(weight: float, losses: Fun) -> Fun:
    """Return the gradient of the weighted sum; with the weight 0, of the loss alone."""

    def total(params, *rest):
        (loss, reg), stats = losses(params, *rest)
        return (loss + weight * reg if weight else loss), stats

    return jax.grad(total, has_aux=True)


def of_pair(losses: Fun) -> Fun:
    """Return two gradients from one forward pass."""

    def gradient(*args):
        (_, stats), pair = value_and_grad_pair(losses, True)(*args)
        return pair, stats

    return gradient


WEIGHT = FINETUNE_WEIGHTS["knowdist"]
# The gradient of L2-SP is formed in the update, without a second backward pass.
# A gradient is made from the losses: `(params, stats, *rest) -> (gradient or pair, stats)`.
METHODS = {
    "none": (optax.identity(), partial(of_sum, 0)),
    "l2_sp": (add_l2_sp(FINETUNE_WEIGHTS["l2_sp"], mask=backbone_mask), partial(of_sum, 0)),
    "knowdist sum": (optax.identity(), partial(of_sum, WEIGHT)),
    "knowdist": (dtnh(WEIGHT, mask=backbone_mask), of_pair),
}
