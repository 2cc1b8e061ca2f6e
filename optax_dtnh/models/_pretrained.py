"""From a checkpoint to a model, strict in both directions."""

import os
from collections.abc import Collection
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from optax_dtnh.models import _agreement as agreement
from optax_dtnh.models._checkpoint import Checkpoint, check_finite, open_checkpoint
from optax_dtnh.models._errors import CheckpointError
from optax_dtnh.models._facts import Fact, facts_beside
from optax_dtnh.models._hub import hub_file, unknown_beside
from optax_dtnh.models._layout import dotted, our_layout
from optax_dtnh.models._recognition import Recognized, recognized
from optax_dtnh.models._resnet import ResNet
from optax_dtnh.models._settled import network, settled
from optax_dtnh.models._vit import ViT, check_image_size

MOST_PATCHES = 1024  # along a side: a million positions


class Loaded(NamedTuple):
    """A model and where it comes from.

    Attributes:
      model: The model.
      path: The file of its weights.
      facts: By name, what no tensor tells and was taken nevertheless; `network` is what the
        tensors tell, and `positions` how they were interpolated.
    """

    model: ResNet | ViT
    path: Path
    facts: dict[str, Fact]


def load_pretrained(
    source: str | os.PathLike[str],
    *,
    dtype: DTypeLike | None = None,
    sha256: str | None = None,
    ignore: Collection[str] = (),
    download: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    heads: int | None = None,
    image_size: int | None = None,
) -> ResNet | ViT:
    """Load a ResNet or ViT from a checkpoint in the form of torchvision, timm or Hugging Face.

    The names and shapes of the tensors give the architecture, the size and the naming scheme. Every
    tensor must be used, and every parameter and statistic filled. Only a head may be left out as a
    whole. The model is in training mode: call `model.eval()` or `teacher_view(model)` for the
    pretrained network's own outputs.

    What no tensor tells is read from the `config.json` beside the file, if there is one: see
    [docs/models.md](models.md#what-no-tensor-tells).

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
      ignore: Names of tensors in the file that may stay unused, or patterns such as `decoder.*`.
      download: Whether to fetch a file that is not in the hub's cache.
      cache_dir: Folder of the hub's cache; None is the client's own choice.
      endpoint: Address of the hub; None is the client's own choice.
      heads: Number of attention heads, for a `ViT` of a size that is not published.
      image_size: Height and width of the images, if others than the checkpoint's. Positions of a
        `ViT` are interpolated as its library does; a `ResNet` takes images of any size.

    Returns:
      A `ResNet` or `ViT` with float32 parameters. Its `head` is None if the file has none.

    Raises:
      FileNotFoundError: The file does not exist, or is not in the cache and `download` is False.
      TypeError: `ignore` is a string, or `heads` or `image_size` no whole number.
      CheckpointError: The file is damaged, is no checkpoint, does not hold exactly the tensors of
        such a model (all differences are listed), holds values that are not finite, or contradicts
        the files beside it.
      OSError: The hub cannot be reached or refuses.
    """
    return load(
        source,
        dtype=dtype,
        sha256=sha256,
        ignore=ignore,
        download=download,
        cache_dir=cache_dir,
        endpoint=endpoint,
        heads=heads,
        image_size=image_size,
    ).model


def load(
    source: str | os.PathLike[str],
    *,
    dtype: DTypeLike | None = None,
    sha256: str | None = None,
    ignore: Collection[str] = (),
    download: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    heads: int | None = None,
    image_size: int | None = None,
) -> Loaded:
    """Load as `load_pretrained` does, and return also the file and the facts that were taken."""
    if isinstance(ignore, str):
        raise TypeError(
            f"`ignore` should be a collection of names, got the string {ignore!r:.60}. Pass a list."
        )
    for name, number in (("heads", heads), ("image_size", image_size)):
        _check_whole(name, number)
    said: dict[str, Fact] = {}
    if isinstance(source, str) and source.startswith("hf:"):
        path = hub_file(source, download=download, cache_dir=cache_dir, endpoint=endpoint)
        if unknown := unknown_beside(source, cache_dir=cache_dir):
            said["not_fetched"] = Fact(unknown, source)
        source = path
    file = open_checkpoint(source, sha256)
    found = recognized(file, ignore)
    said |= facts_beside(file.path)
    taken = _checked(file, found, said, ignore=ignore, heads=heads)
    options = {name: fact.value for name, fact in taken.items()}
    model = _filled(file, found, _abstract(file, found, dtype=dtype, **options))
    told = {"network": network(file, found, model), **taken}
    return Loaded(model, file.path, {**told, **_resized(file, found, model, image_size)})


def _check_whole(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(
            f"`{name}` should be a whole number or None, got {value!r:.60}. Pass an int."
        )


def _checked(
    file: Checkpoint,
    found: Recognized,
    said: dict[str, Fact],
    *,
    ignore: Collection[str],
    heads: int | None,
) -> dict[str, Fact]:
    """Return the facts to build the model with, once nothing contradicts the tensors."""
    sizes = _abstract(file, found)
    agreement.check_kind(file, sizes, said)
    agreement.check_grid(file, found, sizes, said)
    agreement.check_tensors(file, found, sizes, ignore)
    agreement.check_facts(file, found, sizes, said)
    if isinstance(sizes, ViT):
        return settled(file, found.scheme, sizes, said, heads)
    if heads is not None:
        raise CheckpointError(
            f"`heads` should be left out for a ResNet, got {heads} for {file.path}. Drop it."
        )
    return {}


def _abstract(file: Checkpoint, found: Recognized, **options: Any) -> ResNet | ViT:
    """Return the model of that size with shapes and dtypes in place of arrays."""

    def shape_of(path):
        tensor = file.tensors.get(found.names_of(path)[0])
        return None if tensor is None or 0 in tensor.shape else tensor.shape

    build = found.scheme.build
    return cast(ResNet | ViT, nnx.eval_shape(lambda: build(shape_of, rngs=OneKey(), **options)))


class OneKey(nnx.Rngs):
    """One key for every parameter of a model that is built without values.

    `nnx.Rngs` counts its keys, and under `nnx.eval_shape` each count looks at all before it: ten
    times as long for a ResNet-152.
    """

    def params(self) -> jax.Array:
        return jax.random.key(0)


def _filled(file: Checkpoint, found: Recognized, abstract: ResNet | ViT) -> ResNet | ViT:
    """Return the model with the values of the file."""
    graph, state = nnx.split(abstract)
    leaves = dict(nnx.to_flat_state(state))
    names = {path: found.names_of(dotted(path)) for path in leaves}
    arrays = file.read()
    arrays = {name: arrays[name] for ours in names.values() for name in ours}
    check_finite(file.path, arrays)
    agreement.check_variances(file, arrays)
    for path, variable in leaves.items():
        parts = [arrays.pop(name) for name in names[path]]
        leaves[path] = variable.replace(our_layout(path, parts))
    return nnx.merge(graph, nnx.from_flat_state(leaves))


def _resized(
    file: Checkpoint, found: Recognized, model: ResNet | ViT, image_size: int | None
) -> dict[str, Fact]:
    """Interpolate the positions of a transformer if asked, and return the size with its origin."""
    asked = {} if image_size is None else {"image_size": Fact(image_size, "--image-size")}
    if isinstance(model, ResNet):
        return asked
    if image_size is None or image_size == model.image_size:
        name = found.names_of("positions")[0]
        return {"image_size": Fact(model.image_size, f"{name} of {file.path.name}"), **asked}
    patch_size, before = model.patches.kernel_size[0], model.image_size
    try:
        check_image_size(image_size, patch_size)
    except ValueError as error:
        raise CheckpointError(f"{error} This is for {file.path}.") from error
    if image_size > MOST_PATCHES * patch_size:
        raise CheckpointError(
            f"`image_size` should be at most {MOST_PATCHES * patch_size}, which is {MOST_PATCHES} "
            f"patches, got {image_size} for {file.path}. Pass the size that the images have."
        )
    positions = found.scheme.resize(np.asarray(model.positions[...]), image_size // patch_size)
    model.positions.set_value(jnp.asarray(positions))
    model.image_size = image_size
    library = found.scheme.name.removesuffix(" ViT")
    rule = f"interpolated from {before} x {before} as {library} does"
    return {**asked, "positions": Fact(rule, "--image-size")}
