"""What a transfer needs of a pretrained model: a new head, a mask of the backbone, a teacher."""

from typing import Any, TypeVar

import jax
from flax import nnx

from optax_dtnh.models._resnet import ResNet
from optax_dtnh.models._vit import ViT

Model = TypeVar("Model", ResNet, ViT)
HEAD = "head"


def replace_head(model: Model, classes: int, *, rngs: nnx.Rngs) -> Model:
    """Return a copy of `model` with a new, random head for another number of classes.

    The copy shares nothing with `model`, so you can train and donate it while `model` serves as the
    teacher.

    Examples:
      >>> from flax import nnx
      >>> from optax_dtnh.models import replace_head, resnet18
      >>> source = resnet18(width=8, rngs=nnx.Rngs(0))
      >>> model = replace_head(source, 67, rngs=nnx.Rngs(1))
      >>> model.head.out_features, source.head.out_features
      (67, 1000)

    Args:
      model: A `ResNet` or `ViT`, such as from `load_pretrained`, with a head or without.
      classes: Number of classes of the new task.
      rngs: Random keys for the head.

    Returns:
      A model of the same class, in the same mode. It is trainable even if `model` is a
      `teacher_view`.

    Raises:
      ValueError: `classes` is not positive.
    """
    if classes < 1:
        raise ValueError(
            f"`classes` should be at least 1, got {classes}. Pass the number of classes of the "
            "new task."
        )
    copy = nnx.clone(model, arrays=True)
    copy.head = nnx.Linear(model.pooled_width, classes, dtype=model.dtype, rngs=rngs)
    copy.frozen = False
    return copy


def backbone_mask(tree: Any) -> Any:
    """Return a tree of booleans, True for pretrained parameters and False for those of the head.

    It is the `mask` of `add_l2_sp` and `dtnh` for these models. Pass `mask=backbone_mask(model)` if
    `nnx.Optimizer(model, tx, wrt=nnx.Param)` updates the model, and `mask=backbone_mask(params)`
    for other containers. `mask=backbone_mask` fits both.

    Examples:
      >>> import jax
      >>> from flax import nnx
      >>> from optax_dtnh.models import backbone_mask, resnet18
      >>> model = resnet18(width=8, classes=3, rngs=nnx.Rngs(0))
      >>> mask = backbone_mask(model)
      >>> mask["head"]["kernel"], mask["stem"]["conv"]["kernel"]
      (False, True)

    Args:
      tree: A `ResNet` or `ViT`, or a tree of its parameters: `nnx.state(model, nnx.Param)`, its
        pure form, or nested dicts.

    Returns:
      For a model, a pure `nnx.State` with the structure of its parameters; for a tree, one like it.
      All of a model without a head is backbone.

    Raises:
      ValueError: The tree has no `head`, or nothing else.
    """
    if isinstance(tree, nnx.Module):
        headless = getattr(tree, HEAD, ...) is None
        tree = nnx.as_pure(nnx.state(tree, nnx.Param))
        if headless:
            return jax.tree.map(lambda _: True, tree)
    mask = jax.tree.map_with_path(lambda path, _: not _of_head(path), tree)
    if len(set(jax.tree.leaves(mask))) < 2:
        raise ValueError(
            "`tree` should hold the parameters of a backbone and under `head` those of a head, got "
            f"{sorted({str(p[0]) for p, _ in jax.tree.leaves_with_path(tree) if p})}. Pass the "
            "model, or all its parameters."
        )
    return mask


def teacher_view(model: Model) -> Model:
    """Return a frozen view of `model`: evaluation mode, no gradients, the same variables.

    The view needs no memory. Because it shares the variables, it changes with `model`: train a copy
    instead, from `replace_head` or `nnx.clone(model, arrays=True)`.

    Examples:
      >>> from flax import nnx
      >>> from optax_dtnh.models import resnet18, teacher_view
      >>> model = resnet18(width=8, rngs=nnx.Rngs(0))
      >>> teacher = teacher_view(model)
      >>> teacher.stem.norm.use_running_average, model.stem.norm.use_running_average
      (True, False)
      >>> teacher.head.kernel is model.head.kernel
      True

    Args:
      model: A `ResNet` or `ViT`. Its own mode stays as it is.

    Returns:
      A model of the same class whose outputs pass no gradient to its parameters or images.
    """
    options = {"use_running_average": True, "frozen": True}
    return nnx.view(model, **options, raise_if_not_found=False)  # a ViT has no running average


def _of_head(path: tuple[Any, ...]) -> bool:
    return bool(path) and getattr(path[0], "key", getattr(path[0], "name", None)) == HEAD
