"""From a checkpoint to a model, strict in both directions."""

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import jax
from flax import nnx
from jax.typing import DTypeLike

from optax_dtnh.models._checkpoint import Checkpoint, check_finite, open_checkpoint
from optax_dtnh.models._hub import hub_file
from optax_dtnh.models._layout import EXACT, dotted, our_layout, their_shape
from optax_dtnh.models._names import EPSILON, SCHEMES, Scheme, names_of
from optax_dtnh.models._resnet import ResNet
from optax_dtnh.models._vit import ViT

Names = tuple[str, ...]
Leaves = dict[tuple[Any, ...], Any]


def load_pretrained(
    source: str | os.PathLike[str],
    *,
    dtype: DTypeLike | None = None,
    sha256: str | None = None,
    ignore: Collection[str] = (),
    download: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> ResNet | ViT:
    """Load a ResNet or ViT from a checkpoint in the form of torchvision, timm or Hugging Face.

    The names and shapes of the tensors give the architecture, the size and the naming scheme. Every
    tensor must be used, and every parameter and statistic filled. The model is in training mode:
    call `model.eval()` or `teacher_view(model)` for the pretrained network's own outputs.

    [docs/models.md](models.md#what-no-tensor-tells) lists what the file does not say, such as the
    preprocessing of the images.

    Examples:
      >>> import tempfile
      >>> from flax import nnx
      >>> from optax_dtnh.models import load_pretrained, resnet18, save_pretrained
      >>> path = tempfile.mkdtemp() + "/resnet18.safetensors"
      >>> save_pretrained(resnet18(width=8, classes=3, rngs=nnx.Rngs(0)), path)
      >>> load_pretrained(path).head.out_features
      3

    Args:
      source: Path of a `.safetensors` file, or with torch installed of a `.pth`, `.pt` or `.bin`
        file; or `hf:owner/name`, `hf:owner/name@revision`, `hf:owner/name/file` on the hub.
      dtype: Dtype to compute in, such as `jnp.bfloat16`. Parameters are always float32.
      sha256: Digest that the file must have. Without it, a damaged file can load without an error.
      ignore: Names of tensors in the file that may stay unused, such as a list.
      download: Whether to fetch a file that is not in the hub's cache.
      cache_dir: Folder of the hub's cache; None is the client's own choice.
      endpoint: Address of the hub; None is the client's own choice.

    Returns:
      A `ResNet` or `ViT` with float32 parameters.

    Raises:
      FileNotFoundError: The file does not exist, or is not in the cache and `download` is False.
      TypeError: `ignore` is a string.
      ValueError: The file is damaged, is no checkpoint, or does not hold exactly the tensors of
        such a model (all differences are listed), or holds values that are not finite.
      OSError: The hub cannot be reached or refuses.
    """
    if isinstance(ignore, str):
        raise TypeError(
            f"`ignore` should be a collection of names, got the string {ignore!r:.60}. Pass a list."
        )
    if isinstance(source, str) and source.startswith("hf:"):
        source = hub_file(source, download=download, cache_dir=cache_dir, endpoint=endpoint)
    file = open_checkpoint(source, sha256)
    scheme = _recognized(file)
    graph, state = nnx.split(_abstract(file, scheme, dtype))
    leaves = dict(nnx.to_flat_state(state))
    names = {path: names_of(scheme, dotted(path)) for path in leaves}
    _check_tensors(file, scheme, leaves, names, ignore)
    arrays = file.read()
    check_finite(file.path, {name: arrays[name] for ours in names.values() for name in ours})
    for path, variable in leaves.items():
        parts = [arrays.pop(name) for name in names[path]]
        leaves[path] = variable.replace(our_layout(path, parts))
    return cast(ResNet | ViT, nnx.merge(graph, nnx.from_flat_state(leaves)))


def _recognized(file: Checkpoint) -> Scheme:
    for scheme in SCHEMES:
        if scheme.known_by in file.tensors:
            return scheme
    raise ValueError(
        f"`source` should be a checkpoint of a {', '.join(s.name for s in SCHEMES)}, got "
        f"{file.path} with {len(file.tensors)} tensors: {_listed(file.tensors)}. Pass one "
        f"that has one of {_listed(s.known_by for s in SCHEMES)}, or convert the names."
    )


def _abstract(file: Checkpoint, scheme: Scheme, dtype: DTypeLike | None) -> nnx.Module:
    """Return the model of that size with shapes and dtypes in place of arrays."""

    def shape_of(path):
        tensor = file.tensors.get(names_of(scheme, path)[0])
        return None if tensor is None else tensor.shape

    options = dict(scheme.options)
    if EPSILON in file.metadata:
        options["epsilon"] = float(file.metadata[EPSILON])
    try:
        return nnx.eval_shape(lambda: scheme.build(shape_of, dtype=dtype, rngs=OneKey(), **options))
    except ValueError as error:
        raise ValueError(
            f"`source` should hold a {scheme.name} of a size that exists here, got {file.path}: "
            f"{error}"
        ) from error


class OneKey(nnx.Rngs):
    """One key for every parameter of a model that is built without values.

    `nnx.Rngs` counts its keys, and under `nnx.eval_shape` each count looks at all before it: ten
    times as long for a ResNet-152.
    """

    def params(self) -> jax.Array:
        return jax.random.key(0)


def _check_tensors(
    file: Checkpoint,
    scheme: Scheme,
    leaves: Leaves,
    names: Mapping[tuple[Any, ...], Names],
    ignore: Collection[str],
) -> None:
    """Raise unless the file holds exactly the tensors of the model, in their shapes."""
    expected = {
        name: their_shape(path, leaf.shape, len(names[path]))
        for path, leaf in leaves.items()
        for name in names[path]
    }
    unused = set(file.tensors) - set(expected) - set(ignore) - scheme.excused
    counters = {n.removesuffix("running_mean") + "num_batches_tracked" for n in expected}
    wrong = [
        f"{name} {list(tensor.shape)} {tensor.dtype} instead of {list(expected[name])} float32"
        for name, tensor in file.tensors.items()
        if name in expected and (tensor.shape != expected[name] or str(tensor.dtype) not in EXACT)
    ]
    found = {
        "missing": expected.keys() - file.tensors,
        "unexpected": unused - counters,
        "of another shape or dtype": wrong,
    }
    if any(found.values()):
        listed = "; ".join(f"{len(n)} {what}: {_listed(n)}" for what, n in found.items() if n)
        raise ValueError(
            f"`source` should hold the tensors of a {scheme.name}, got {file.path} with {listed}. "
            "Pass a checkpoint of this architecture; name in `ignore` what may stay unused."
        )


def _listed(names: Iterable[str], most: int = 20) -> str:
    names = sorted(names)
    return ", ".join(names[:most] + [f"and {len(names) - most} more"] * (len(names) > most))
