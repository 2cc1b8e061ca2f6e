"""The state of a run as one tree, the steps that change it, and how it lies on the devices.

Networks are split into a definition, which is closed over, and arrays, which are arguments: the
state, donated, and the frozen pretrained network, which stays. Under `jit` every mean and inner
product is that of the whole batch, however it is divided.
"""

import math
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
from optax_dtnh.finetune.settings import FROZEN, Settings
from optax_dtnh.models import ViT, teacher_view
from optax_dtnh.models._names import Model

AXIS = "batch"
GO_ON, SAVE, STOP = range(3)  # what a process asks all others for
SMALLEST = 1024  # elements of an array that is worth dividing


class State(NamedTuple):
    """What training changes, and what a checkpoint holds."""

    params: Any
    stats: Any  # running statistics of batch normalization, and what is frozen
    opt_state: Any  # with the anchor of L2-SP and the averaged gradient
    channel_weights: dict[str, jax.Array]  # those of DELTA by layer; empty for other methods
    sums: "Metrics"  # since the last line of the log
    step: jax.Array  # number of steps made


class Metrics(NamedTuple):
    """Means over a batch before the step, or their sums over steps."""

    loss: jax.Array  # cross-entropy, as it is trained: of weighted classes and smoothed labels
    accuracy: jax.Array
    regularizer: jax.Array  # without the weight; 0 for L2-SP, whose value is computed for the log
    conflict: jax.Array  # 1 where the two gradients conflict
    cosine: jax.Array  # of the angle between them
    ratio: jax.Array  # weight |r'| / |g|
    steps: jax.Array  # 1, so that a sum knows how many it is of


class Network(NamedTuple):
    """A network apart from its arrays: `nnx.merge(*network)` puts it together."""

    graph: Any  # its definition
    params: Any
    stats: Any  # all other arrays


def split(model: Model, trained: Any = nnx.Param) -> Network:
    """Return the network apart from its arrays; `trained` filters those that become `params`."""
    graph, params, rest = nnx.split(model, trained, ...)
    return Network(graph, nnx.as_pure(params), nnx.as_pure(rest))


def mesh(settings: Settings) -> Mesh:
    """Return as many of the first devices as the settings say, or all, as one axis."""
    found, processes = jax.devices(), jax.process_count()
    count = settings.devices or len(found)
    if count > len(found) or (count < len(found) and processes > 1):
        raise UsageError(
            f"`--devices` should be at most the number of devices, {len(found)}, or equal to it "
            f"with several processes, got {count}. Leave it out."
        )
    if settings.batch_size % math.lcm(count, processes):
        raise UsageError(
            f"`--batch-size` should be a multiple of the number of devices, {count}, and of "
            f"processes, {processes}, got {settings.batch_size}. Change it, or --devices."
        )
    return Mesh(np.array(found[:count]), (AXIS,), axis_types=(AxisType.Auto,))


def maps(model: Model, rows: int, side: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes and dtypes of the feature maps of a batch."""
    images = jax.ShapeDtypeStruct((rows, side, side, 3), jnp.float32)
    return nnx.eval_shape(lambda model, images: model(images)[1], teacher_view(model), images)


def check_batch(settings: Settings, model: Model, image_size: int) -> None:
    """Raise a `UsageError` where batch normalization would get one value per channel."""
    if isinstance(model, ViT) or settings.batch_norm == FROZEN:
        return
    # Over the whole batch: under `jit`, devices and processes share it.
    found = maps(model, settings.batch_size // settings.micro_batches, image_size).values()
    if min(x.size // x.shape[-1] for x in found) < 2:
        raise UsageError(
            f"`--batch-size` should be {2 * settings.micro_batches} or more at --image-size "
            f"{image_size}, got {settings.batch_size}. Raise one of them: batch normalization "
            "needs two values per channel."
        )


def shardings(tree: Any, mesh: Mesh, settings: Settings) -> Any:
    """Return where every array of `tree` lies: whole on each device, or with `fsdp` in parts.

    Divided is the longest axis that the number of devices divides, of arrays that are large enough.
    """

    def sharding(x):
        fitting = [n if n % mesh.size == 0 else 0 for n in x.shape]
        if not settings.fsdp or x.size < SMALLEST or not any(fitting):
            return NamedSharding(mesh, PartitionSpec())
        return NamedSharding(mesh, PartitionSpec(*[None] * int(np.argmax(fitting)), AXIS))

    return jax.tree.map(sharding, tree)


def on_devices(
    batch: dict[str, np.ndarray], mesh: Mesh, *, ask: int = GO_ON
) -> dict[str, jax.Array]:
    """Return a global batch, divided among the devices, from this process's rows.

    What this process asks for, `SAVE` or `STOP`, becomes a part of the batch, so that all processes
    learn of it after the same step.
    """
    rows = NamedSharding(mesh, PartitionSpec(AXIS))
    batch = batch | {"ask": np.full(len(batch["label"]), ask, np.int32)}
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
) -> Callable[..., tuple[State, jax.Array]]:
    """Return `step(state, pretrained, batch) -> (state, asked)`, to be jitted.

    One forward pass of the student serves both gradients, which are averaged over micro-batches
    before they are compared; so are the running statistics. `pretrained` are the teacher's
    parameters and statistics, None for methods without a teacher. `asked` is the most that any
    process asks for. `student` and `teacher` are definitions of networks, `tx` transforms a
    `GradientPair`.
    """
    regularize = methods.REGULARIZERS.get(settings.regularizer, lambda *_: jnp.zeros([]))
    # A filter of variables: of none, or of the running statistics.
    moving = False if settings.batch_norm == FROZEN else nnx.BatchStat

    def step(state: State, pretrained: Any, batch: dict[str, jax.Array]) -> tuple[State, jax.Array]:
        frozen = teacher_view(nnx.merge(teacher, *pretrained)) if pretrained else None

        def losses(params, batch):
            model = nnx.merge(student, params, state.stats)
            teacher_outputs = None
            if frozen is not None:
                _, teacher_outputs = outputs(frozen, frozen, batch["image"], layers)
            logits, student_outputs = outputs(model, frozen, batch["image"], layers)
            given = student_outputs, teacher_outputs, state.channel_weights, settings.temperature
            right = jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])
            moved = nnx.as_pure(nnx.state(model, moving))
            loss = _loss(logits, batch, settings.label_smoothing)
            return (loss, regularize(*given)), (right, moved)

        ((loss, reg), (right, moved)), pair = _gradients(losses, settings)(state.params, batch)
        updates, opt_state = tx.update(pair, state.opt_state, state.params)
        between = methods.compared(settings, pair, state.params, opt_state)
        seen = Metrics(loss, right, reg, *between, jnp.ones([]))
        sums = jax.tree.map(jnp.add, state.sums, seen)
        params = optax.apply_updates(state.params, updates)
        stats = nnx.merge_state(state.stats, moved)
        new = State(params, stats, opt_state, state.channel_weights, sums, state.step + 1)
        return new, jnp.max(batch["ask"])

    return step


def _loss(logits: jax.Array, batch: dict[str, jax.Array], smoothing: float) -> jax.Array:
    return jnp.mean(cross_entropy(logits, batch["label"], smoothing) * batch.get("weight", 1.0))


def _gradients(losses: Any, settings: Settings) -> Callable[..., Any]:
    """Return what takes parameters and a batch to values, and to both gradients."""
    if settings.micro_batches == 1:
        return value_and_grad_pair(losses, True)
    evaluate = value_and_grad_pair(losses, True, micro_batches=settings.micro_batches)

    def averaged(params, batch):
        (values, aux), pair = evaluate(params, batch)
        return (values, jax.tree.map(lambda x: jnp.mean(x, axis=0), aux)), pair

    return averaged


def outputs(
    model: Model, frozen: Model | None, images: jax.Array, layers: tuple[str, ...]
) -> tuple[jax.Array, Outputs]:
    """Return the logits and what regularizers see; what they do not use is never computed."""
    logits, features = model(images)
    pooled = methods.pooled(model, features)
    head = None if frozen is None else frozen.head
    of_pretrained_head = None if head is None else head(pooled)
    return logits, Outputs({name: features[name] for name in layers}, pooled, of_pretrained_head)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Return the cross-entropy of each image, in float32."""
    logits = logits.astype(jnp.float32)
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    smoothed = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, smoothed)
