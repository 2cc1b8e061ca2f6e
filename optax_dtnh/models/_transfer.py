"""What a transfer needs of a pretrained model: a new head, a mask of the backbone, a teacher."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx
from jax.lax import stop_gradient

from optax_dtnh._checks import check_count

Model = TypeVar("Model", bound=nnx.Module)
HEAD = "head"
KEPT = "use_bias dtype param_dtype precision dot_general promote_dtype preferred_element_type"


def replace_head(model: Model, classes: int, *, rngs: nnx.Rngs, head: str = HEAD) -> Model:
    """Return a copy of `model` with a new, random head for another number of classes.

    The copy shares nothing with `model`, which may be a `teacher_view`, so you can train and donate
    it. The new head has the inputs and the dtypes of the old one, and a bias if that had one.

    Examples:
      >>> from flax import nnx
      >>> from optax_dtnh.models import replace_head, resnet18
      >>> source = resnet18(width=8, rngs=nnx.Rngs(0))
      >>> replace_head(source, 67, rngs=nnx.Rngs(1)).head.out_features
      67

    Args:
      model: Any `nnx.Module` whose head is an `nnx.Linear`, or one of ours without a head.
      classes: Number of classes of the new task.
      rngs: Random keys for the head.
      head: Path of the head in `model`, such as `"classifier"`, `"head.fc"` or `"layers.3"`.

    Raises:
      ValueError: There is no `nnx.Linear` at `head`.
    """
    check_count("classes", classes, "Pass one.")
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"`rngs` should be an nnx.Rngs, got {rngs!r:.60}. Pass `nnx.Rngs(0)`.")
    inputs, options = _old_head(model, head)
    new = nnx.Linear(inputs, classes, **options, rngs=rngs)
    copy = _with_kinds(nnx.clone(model, arrays=True), lambda kind: getattr(kind, "thawed", kind))
    at = head.split(".")
    return nnx.recursive_map(lambda path, x: new if [*map(str, path)] == at else x, copy)


def backbone_mask(tree: Any, head: str | Callable[[str, Any], bool] = HEAD) -> Any:
    """Return a tree of booleans, True for pretrained parameters and False for those of the head.

    It is the `mask` of `add_l2_sp` and `dtnh`: `backbone_mask(model)` if an `nnx.Optimizer` with
    `wrt=nnx.Param` updates the model, `backbone_mask(params)` for other containers. The function
    itself, or a `functools.partial` of it, fits both.

    Examples:
      >>> from flax import nnx
      >>> from optax_dtnh.models import backbone_mask, resnet18
      >>> model = resnet18(width=8, classes=3, rngs=nnx.Rngs(0))
      >>> mask = backbone_mask(model)
      >>> mask["head"]["kernel"], mask["stem"]["conv"]["kernel"]
      (False, True)

    Args:
      tree: Any `nnx.Module`, or a tree of its parameters, such as `nnx.state(model, nnx.Param)`.
      head: Path of the head, such as `"head.fc"`, or a function that tells by the path of a
        parameter, such as `"head.fc.kernel"`, and its array whether it is of the head.

    Returns:
      For a model, a pure `nnx.State` with the structure of its parameters; for a tree, one like it.
      All of a model whose head is None is backbone.
    """
    headless = isinstance(head, str) and getattr(tree, head, ...) is None
    if isinstance(tree, nnx.Module):
        tree = nnx.as_pure(nnx.state(tree, nnx.Param))
    mask = jax.tree.map_with_path(lambda path, x: not _of_head(head, path, x), tree)
    if not headless and len(set(jax.tree.leaves(mask))) < 2:
        raise ValueError(
            f"`tree` should hold the parameters of a backbone and, under {head!r:.60}, those of a "
            f"head, got {sorted({str(p[0]) for p, _ in jax.tree.leaves_with_path(tree) if p})}. "
            "Pass the model, or all its parameters, and the path of its head as `head`."
        )
    return mask


def teacher_view(model: Model) -> Model:
    """Return a frozen view of `model`: evaluation mode, no gradients, the same arrays.

    Its modules are in the mode of `model.eval()`; gradients pass to the inputs alone. A call that
    would still update a variable, such as a running mean, raises a ValueError: pass the network's
    own argument, such as `train=False`. Updates of `model` do not change the view. But a step that
    donates `model` deletes the arrays of both: train a copy, as from `replace_head`.

    Examples:
      >>> from flax import nnx
      >>> from optax_dtnh.models import resnet18, teacher_view
      >>> model = resnet18(width=8, rngs=nnx.Rngs(0))
      >>> teacher = teacher_view(model)
      >>> teacher.stem.norm.use_running_average, model.stem.norm.use_running_average
      (True, False)

    Args:
      model: Any `nnx.Module`. Its own mode stays as it is.
    """
    if not isinstance(model, nnx.Module):
        raise TypeError(
            f"`model` should be an nnx.Module, got {type(model).__name__}. For other networks, "
            "apply `jax.lax.stop_gradient` to the outputs in evaluation mode."
        )
    modes = {"deterministic": True, "use_running_average": True, "raise_if_not_found": False}
    return _with_kinds(nnx.clone(nnx.with_attributes(model, **modes)), _frozen)


@functools.cache  # one class per kind, so that `jit` compiles once for all views of a model
def _frozen(kind: Any) -> Any:
    """Return `kind`, a class of variables, with values that pass no gradient and cannot be set."""
    if hasattr(kind, "thawed") or issubclass(kind, nnx.Intermediate):
        return kind

    def get_value(self, **index):
        value = kind.get_value(self, **index)
        # In `repr` and `nnx.get_partition_spec`, a leaf is no array.
        return jax.tree.map(lambda x: stop_gradient(x) if isinstance(x, jax.Array) else x, value)

    def attribute(self, name):  # of the array, such as `kernel.T`
        held = self.get_metadata()
        return held[name] if name in held else getattr(self.get_value(), name)

    def set_value(self, *_, **__):
        raise ValueError(
            "`model` should be in evaluation mode as a teacher, got a call that updates its "
            f"{kind.__name__} of shape {list(self.shape)}. Pass the network's argument for "
            "evaluation, such as `train=False`, to the call."
        )

    methods = {"get_value": get_value, "set_value": set_value, "__getattr__": attribute}
    return type(kind)(kind.__name__, (kind,), methods | {"thawed": kind})


def _with_kinds(model: Model, kind: Callable[[Any], Any]) -> Model:
    for _, x in nnx.iter_graph(model):
        if isinstance(x, nnx.Variable):
            object.__setattr__(x, "__class__", kind(type(x)))
    return model


def _old_head(model: Any, head: str) -> tuple[int, dict[str, Any]]:
    """Return the width of the head's inputs, and the options that a new head keeps."""
    nodes = {".".join(map(str, path)): node for path, node in nnx.iter_graph(model)}
    old = nodes.get(head, getattr(model, head, ...)) if isinstance(head, str) else ...
    if type(old) is nnx.Linear:
        return old.in_features, {name: getattr(old, name) for name in KEPT.split()}
    if old is None and hasattr(model, "pooled_width"):
        return model.pooled_width, {"dtype": model.dtype}
    linear = [path for path, node in nodes.items() if type(node) is nnx.Linear]
    raise ValueError(
        f"`head` should be the path of an nnx.Linear, one of {linear}, got {head!r}. Pass that of "
        "the network's head."
    )


def _of_head(head: Any, path: tuple[Any, ...], x: Any) -> Any:
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):  # inside a variable
        path = path[:-1]
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return head(name, x) if callable(head) else f"{name}.".startswith(f"{head}.")
