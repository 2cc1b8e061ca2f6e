"""A fine-tuning step of our ResNet-18, batch normalization in training mode."""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.cost.resnets import losses_with_teacher, states_of
from benchmarks.cost.training import Step, lowered, of_loss, of_pair, of_sum
from benchmarks.peers import inputs
from benchmarks.peers.inputs import FINETUNE_WEIGHTS, MOMENTUM, RATE, Arrays, Contender, Spec
from optax_dtnh import add_l2_sp, dtnh
from optax_dtnh.models import ResNet, backbone_mask, load_pretrained
from optax_dtnh.models._names import TORCHVISION_RESNET, dotted, names_of, their_layout

WEIGHT = FINETUNE_WEIGHTS["knowdist"]


# What is differentiated, and what comes before the optimizer. The gradient of L2-SP is formed in
# the update, without a second backward pass.
METHODS = {
    "none": (of_loss, optax.identity()),
    "l2_sp": (of_loss, add_l2_sp(FINETUNE_WEIGHTS["l2_sp"], mask=backbone_mask)),
    "knowdist sum": (partial(of_sum, weight=WEIGHT), optax.identity()),
    "knowdist": (of_pair, dtnh(WEIGHT, mask=backbone_mask)),
}


def build(spec: Spec) -> Contender:
    """Return a step of `spec["method"]`, one of `METHODS`, from checkpoints."""
    models = [cast(ResNet, load_pretrained(spec[role])) for role in ("student", "teacher")]
    states: list[Any] = [states_of(model) for model in models]
    (params, statistics), source = jax.tree.map(lambda x: x.astype(spec["dtype"]), states)
    gradients, form = METHODS[spec["method"]]
    losses = losses_with_teacher(models[0], ("stage4",))
    step = Step(gradients(losses), optax.chain(form, optax.sgd(RATE, MOMENTUM)))
    images, labels = map(jnp.asarray, inputs.images(spec))
    state = step.transformation.init(source[0])  # what `init` sees is the anchor
    carry, data, before = (params, statistics, state), (images, labels, source), named(params)
    compiled = lowered(step, params, statistics, data, state).compile()

    def run():
        nonlocal carry
        carry = jax.block_until_ready(compiled(*carry, *data))[:3]

    def updates():
        return {name: array - before[name] for name, array in named(carry[0]).items()}

    return Contender(run, updates)


def named(params: Any) -> Arrays:
    """Return the parameters under the names and in the layout of torchvision's checkpoints."""
    leaves = [(path, np.asarray(leaf)) for path, leaf in nnx.to_flat_state(params)]
    return {
        names_of(TORCHVISION_RESNET, dotted(path))[0]: their_layout(path, leaf).copy()
        for path, leaf in leaves
    }
