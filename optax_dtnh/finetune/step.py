"""The state of a run as one tree, the steps that change it, and how it lies on the devices.

Networks are split into a definition, which is closed over, and arrays, which are arguments: the
state, donated, and the frozen pretrained network, which stays. Under `jit` every mean and inner
product is that of the whole batch, however it is divided.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from optax_dtnh import value_and_grad_pair
from optax_dtnh.finetune import methods
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.methods import Outputs
from optax_dtnh.finetune.settings import Settings
from optax_dtnh.models import ViT, teacher_view

AXIS = "batch"
SMALLEST = 1024  # elements of an array that is worth dividing


class State(NamedTuple):
    """What training changes, and what a checkpoint holds."""

    params: Any
    stats: Any  # running statistics of batch normalization
    opt_state: Any  # with the anchor of L2-SP and the averaged gradient
    channel_weights: dict[str, jax.Array]  # those of DELTA by layer; empty for other methods
    sums: "Metrics"  # since the last line of the log
    step: jax.Array  # number of steps made


class Metrics(NamedTuple):
    """Means over a batch before the step, or their sums over steps."""

    loss: jax.Array  # cross-entropy
    accuracy: jax.Array
    regularizer: jax.Array  # without the weight; 0 for L2-SP, whose value is computed for the log
    conflict: jax.Array  # 1 where the two gradients conflict
    steps: jax.Array  # 1, so that a sum knows how many it is of


class Network(NamedTuple):
    """A network apart from its arrays: `nnx.merge(*network)` puts it together."""

    graph: Any  # its definition
    params: Any
    stats: Any  # all other arrays


def split(model: methods.Model) -> Network:
    """Return the network apart from its arrays."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return Network(graph, nnx.as_pure(params), nnx.as_pure(rest))


def mesh(devices: int | None) -> Mesh:
    """Return the first `devices` devices, or all, as one axis."""
    found = jax.devices()
    count = len(found) if devices is None else devices
    if count > len(found) or (count < len(found) and jax.process_count() > 1):
        raise UsageError(
            f"`--devices` should be at most {len(found)}, the number of devices, and all of them "
            f"for several processes, got {devices}. Leave it out."
        )
    return Mesh(np.array(found[:count]), (AXIS,), axis_types=(AxisType.Auto,))


def check_batch(settings: Settings, model: methods.Model, image_size: int) -> None:
    """Raise a `UsageError` where batch normalization would get one value per channel."""
    if isinstance(model, ViT):
        return
    images = jax.ShapeDtypeStruct((settings.batch_size, image_size, image_size, 3), jnp.float32)
    _, maps = nnx.eval_shape(lambda model, images: model(images), teacher_view(model), images)
    # Over the whole batch: under `jit`, devices and processes share it.
    if min(x.size // x.shape[-1] for x in maps.values()) < 2:
        raise UsageError(
            f"`--batch-size` should be 2 or more at --image-size {image_size}, got 1. Raise one of "
            "them: batch normalization needs two values per channel."
        )


def shardings(tree: Any, mesh: Mesh, *, fsdp: bool) -> Any:
    """Return where every array of `tree` lies: whole on each device, or with `fsdp` in parts.

    Divided is the longest axis that the number of devices divides, of arrays that are large enough.
    """

    def sharding(x):
        shape = jnp.shape(x)
        fitting = [n if n % mesh.size == 0 else 0 for n in shape]
        if not fsdp or int(np.prod(shape)) < SMALLEST or max(fitting) == 0:
            return NamedSharding(mesh, PartitionSpec())
        axis = fitting.index(max(fitting))
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))

    return jax.tree.map(sharding, tree)


def on_devices(
    batch: dict[str, np.ndarray], mesh: Mesh, *, stop: bool = False
) -> dict[str, jax.Array]:
    """Return a global batch, divided among the devices, from this process's rows.

    `stop` becomes a part of the batch, so that all processes learn of it after the same step.
    """
    rows = NamedSharding(mesh, PartitionSpec(AXIS))
    batch = batch | {"stop": np.full(len(batch["label"]), stop)}
    return {k: jax.make_array_from_process_local_data(rows, x) for k, x in batch.items()}


def init(
    params: Any, stats: Any, channel_weights: Any, *, tx: optax.GradientTransformation
) -> State:
    """Return the state before the first step."""
    sums = Metrics(*(jnp.zeros([], jnp.float32) for _ in Metrics._fields))
    step = jnp.zeros([], jnp.int32)
    return State(params, stats, tx.init(params), channel_weights, sums, step)


def train_step(
    student: Any,
    teacher: Any,
    tx: optax.GradientTransformation,
    settings: Settings,
    layers: tuple[str, ...],
    *,
    summed: bool = False,
) -> Callable[..., tuple[State, jax.Array]]:
    """Return `step(state, pretrained, batch) -> (state, stop)`, to be jitted.

    One forward pass of the student serves both gradients. `pretrained` are the teacher's parameters
    and statistics, None for methods without a teacher. `stop` is whether any process asked for it.
    `student` and `teacher` are definitions of networks, `tx` transforms a `GradientPair`. With
    `summed`, its first member is the gradient of `loss + weight * reg`, from one backward pass, and
    its second one is 0.
    """
    regularize = methods.REGULARIZERS.get(settings.regularizer)

    def step(state: State, pretrained: Any, batch: dict[str, jax.Array]) -> tuple[State, jax.Array]:
        frozen = teacher_outputs = None
        if pretrained is not None:
            frozen = teacher_view(nnx.merge(teacher, *pretrained))
            _, teacher_outputs = outputs(frozen, frozen, batch["image"], layers)

        def losses(params):
            model = nnx.merge(student, params, state.stats)
            logits, student_outputs = outputs(model, frozen, batch["image"], layers)
            loss = jnp.mean(cross_entropy(logits, batch["label"]))
            reg = jnp.zeros_like(loss)
            if regularize:
                weights, temperature = state.channel_weights, settings.temperature
                reg = regularize(student_outputs, teacher_outputs, weights, temperature)
            right = jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])
            stats = nnx.as_pure(nnx.state(model, nnx.Not(nnx.Param)))
            values = (loss + settings.weight * reg, jnp.zeros_like(reg)) if summed else (loss, reg)
            return values, (loss, reg, right, stats)

        (_, (loss, reg, right, stats)), pair = value_and_grad_pair(losses, True)(state.params)
        updates, opt_state = tx.update(pair, state.opt_state, state.params)
        conflict = optax.tree.get(opt_state, "conflict", jnp.zeros([]))
        seen = Metrics(loss, right, reg, conflict, jnp.ones([]))
        sums = jax.tree.map(jnp.add, state.sums, seen)
        params = optax.apply_updates(state.params, updates)
        new = State(params, stats, opt_state, state.channel_weights, sums, state.step + 1)
        return new, jnp.any(batch["stop"])

    return step


def outputs(
    model: methods.Model, frozen: methods.Model | None, images: jax.Array, layers: tuple[str, ...]
) -> tuple[jax.Array, Outputs]:
    """Return the logits and what regularizers see; what they do not use is never computed."""
    logits, features = model(images)
    pooled = methods.pooled(model, features)
    head = None if frozen is None else frozen.head
    of_pretrained_head = None if head is None else head(pooled)
    return logits, Outputs({name: features[name] for name in layers}, pooled, of_pretrained_head)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the cross-entropy of each image, in float32."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
