"""A whole training step of a residual network, from images to parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.cost.knowdist import Fun, Maps, losses_of, summed, teacher_of
from optax_dtnh import Rule, add_l2_sp, dtnh, plain, truncate, value_and_grad_pair
from optax_dtnh.models import ResNet, backbone_mask

CLASSES, WEIGHT = 67, 0.1


class Step(NamedTuple):
    """A training step, not yet compiled.

    Attributes:
      gradients: `gradients(params, statistics, *data) -> ((values, moved), updates)`.
      transformation: What makes of those updates the parameters' ones.
      data: What is given to `gradients` besides parameters and statistics, abstract.
    """

    gradients: Fun
    transformation: optax.GradientTransformationExtraArgs
    data: tuple[Any, ...]


class Bill(NamedTuple):
    """What a compiled step costs.

    Attributes:
      flops: Floating-point operations.
      peak: Bytes of arguments, temporary buffers and outputs, what is updated in place once.
      temporary: Bytes of the temporary buffers.
    """

    flops: float
    peak: float
    temporary: float


def abstract_of(model: Callable[..., ResNet]) -> ResNet:
    """Return the network without allocating it."""
    return nnx.eval_shape(lambda: model(classes=CLASSES, rngs=nnx.Rngs(0)))


def states_of(model: ResNet) -> tuple[Any, Any]:
    """Return parameters and batch statistics."""
    params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)[1:]
    return params, statistics


def images_of(batch: int, size: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Return abstract images and labels."""
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    return images, jax.ShapeDtypeStruct((batch,), jnp.int32)


def steps_of(model: ResNet, batch: int, size: int, maps: Maps) -> dict[str, Step]:
    """Return the step of every method, the teacher of KnowDist in it."""
    images, source = images_of(batch, size), states_of(model)
    fun = with_teacher(losses_of(model, maps), teacher_of(model, maps))
    return {
        "fine-tuning": Step(one_of(loss_of(model)), after(optax.identity()), images),
        "L2-SP": Step(one_of(loss_of(model)), after(l2_sp(plain)), images),
        "L2-SP + DTNH": Step(one_of(loss_of(model)), after(l2_sp(truncate)), images),
        "KnowDist": Step(one_of(summed(fun)), after(optax.identity()), (*images, source)),
        "KnowDist + DTNH": Step(pair_of(fun), after(knowdist()), (*images, source)),
    }


def pair_and_sum(model: ResNet, batch: int, size: int, maps: Maps) -> tuple[Step, Step]:
    """Return the steps of KnowDist with DTNH and without, given the teacher's maps."""
    images, fun = images_of(batch, size), losses_of(model, maps)
    f_s = jax.eval_shape(teacher_of(model, maps), *states_of(model), images[0])
    without = Step(one_of(summed(fun)), after(optax.identity()), (*images, f_s))
    return Step(pair_of(fun), after(knowdist()), (*images, f_s)), without


def l2_sp(rule: Rule) -> optax.GradientTransformation:
    """Return L2-SP of the backbone."""
    return add_l2_sp(WEIGHT, rule=rule, mask=backbone_mask)


def knowdist() -> optax.GradientTransformation:
    """Return the conflict-free sum of a pair, at the weight that `summed` gives."""
    return dtnh(1.0, mask=backbone_mask)


def after(first: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return `first` before SGD with momentum."""
    return optax.with_extra_args_support(optax.chain(first, optax.sgd(1e-6, momentum=0.9)))


def loss_of(model: ResNet) -> Fun:
    """Return `fun(params, statistics, images, labels) -> (loss, moved statistics)`."""
    graph = nnx.graphdef(model)

    def fun(params, statistics, images, labels):
        copy = nnx.merge(graph, params, statistics, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(copy(images)[0], labels)
        return losses.mean(), nnx.state(copy, nnx.BatchStat)

    return fun


def with_teacher(fun: Fun, teacher: Fun) -> Fun:
    """Return `fun`, given the teacher's states in place of its maps."""

    def losses(params, statistics, images, labels, source):
        return fun(params, statistics, images, labels, teacher(*source, images))

    return losses


def one_of(fun: Fun) -> Fun:
    """Return value and gradient of a `fun` with one value."""
    return jax.value_and_grad(fun, has_aux=True)


def pair_of(fun: Fun) -> Fun:
    """Return values and gradients of a `fun` with two values."""
    return value_and_grad_pair(fun, has_aux=True)


def compiled(step: Step, model: ResNet, options: Mapping[str, Any] | None) -> jax.stages.Compiled:
    """Return the compiled step, with parameters, statistics and state donated.

    `run(params, statistics, state, *data)` returns the first three anew, and the values.
    """

    def run(params, statistics, state, *data):
        (values, moved), updates = step.gradients(params, statistics, *data)
        updates, state = step.transformation.update(updates, state, params)
        return optax.apply_updates(params, updates), moved, state, values

    params, statistics = states_of(model)
    state = jax.eval_shape(step.transformation.init, params)
    lowered = jax.jit(run, donate_argnums=(0, 1, 2)).lower(params, statistics, state, *step.data)
    return lowered.compile(dict(options or {}))


def bill_of(program: jax.stages.Compiled) -> Bill:
    """Return what XLA says of a compiled step."""
    memory, analysis = cast(Any, program.memory_analysis()), cast(Any, program.cost_analysis())
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    peak = held - memory.alias_size_in_bytes
    return Bill(analysis["flops"], peak, memory.temp_size_in_bytes)
