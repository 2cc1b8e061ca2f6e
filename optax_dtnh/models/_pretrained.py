"""From a checkpoint to a model, strict in both directions, and back."""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from safetensors.numpy import save

from optax_dtnh._checks import check_count
from optax_dtnh.models import _agreement as agreement
from optax_dtnh.models import _names as names
from optax_dtnh.models._checkpoint import CheckpointError, open_checkpoint
from optax_dtnh.models._facts import facts_beside
from optax_dtnh.models._fields import Fact, Facts, facts_of
from optax_dtnh.models._hub import hub_file
from optax_dtnh.models._names import Model, Recognized
from optax_dtnh.models._vit import ViT, check_image_size, resized

# For every parameter of an abstract model: counting keys takes ten times as long.
ONE_KEY: Any = SimpleNamespace(params=lambda: jax.random.key(0))
PARTIAL = ".partial-"  # prefix of a file that is being written


class Loaded(NamedTuple):
    """A model and where it comes from."""

    model: Model
    path: Path  # the file of its weights
    facts: Facts  # what no tensor tells; `network` is what the tensors tell


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
) -> Model:
    """Load a ResNet, ViT or EfficientNet-Lite0 from a checkpoint as torch's libraries write it.

    The names and shapes of the tensors give the architecture, the size and the naming scheme. Every
    tensor must be used, and every parameter and statistic filled. Only a head may be left out as a
    whole. [What no tensor tells](models.md#what-no-tensor-tells) is read from the `config.json`
    beside the file. The model is in training mode: call `model.eval()` or `teacher_view(model)` for
    the pretrained network's own outputs.

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
      cache_dir: Folder of the hub's cache; None, here and below, is the client's own choice.
      endpoint: Address of the hub.
      heads: Number of attention heads, for a `ViT` of a size that is not published.
      image_size: Height and width of the images, if others than the checkpoint's. Positions of a
        `ViT` are interpolated; other networks take images of any size.

    Raises:
      FileNotFoundError: The file does not exist, or is not in the cache and `download` is False.
      TypeError: `ignore` is a string.
      ValueError: `heads` or `image_size` is no positive whole number.
      CheckpointError: The file is damaged, does not hold exactly the tensors of such a model (all
        differences are listed) with finite values, or contradicts the files beside it.
      OSError: The hub cannot be reached or refuses.
    """
    options = {"dtype": dtype, "sha256": sha256, "ignore": ignore, "heads": heads}
    hub = {"download": download, "cache_dir": cache_dir, "endpoint": endpoint}
    return load(source, image_size=image_size, **options, **hub).model


def load(
    source: Any, *, dtype=None, sha256=None, ignore=(), heads=None, image_size=None, **hub: Any
) -> Loaded:
    """Load as `load_pretrained` does, and return also the file and the facts that were taken."""
    _check_options(ignore, heads=heads, image_size=image_size)
    if isinstance(source, str) and source.startswith("hf:"):
        source = hub_file(source, **hub)
    file = open_checkpoint(source, sha256)
    found = names.recognized(file, ignore)
    sizes, said = agreement.sizes_of(found), facts_beside(file.path)
    options = {} if heads is None else {"heads": Fact(heads, "--heads")}
    taken = agreement.settled(found, sizes, said, options)
    model = _abstract(found, sizes, taken, dtype, image_size)
    agreement.check_tensors(found, model, ignore)
    agreement.check_facts(found, sizes, {**said, **options, **taken})
    model = _filled(found, model)
    told = {"network": agreement.network_fact(found, model), **taken}
    return Loaded(model, file.path, told | _resized(found, model, image_size))


def _check_options(ignore: Any, **numbers: Any) -> None:
    if isinstance(ignore, str):
        raise TypeError(
            f"`ignore` should be a collection of names, got the string {ignore!r:.60}. Pass a list."
        )
    for name, value in numbers.items():
        if value is not None:
            check_count(name, value, "Pass one, or None.")


def _abstract(
    found: Recognized, sizes: dict[str, Any], taken: Facts, dtype: Any, image_size: int | None
) -> Model:
    """Return the model with shapes and dtypes in place of arrays."""
    options = {**sizes, **{name: fact.value for name, fact in taken.items()}, "dtype": dtype}
    try:
        if found.scheme.network is ViT:
            options = {"heads": 1, **options}  # no shape depends on them
            check_image_size(image_size or sizes["image_size"], sizes["patch_size"])
        return nnx.eval_shape(lambda: found.scheme.network(**options, rngs=ONE_KEY))
    except ValueError as error:
        told = ", ".join(f"{name} {value} ({origin})" for name, (value, origin) in taken.items())
        raise CheckpointError(f"{error} This is {found.file.path} with {told}.") from error


def _filled(found: Recognized, abstract: Model) -> Model:
    """Return the model with the values of the file."""
    graph, state = nnx.split(abstract)
    leaves, tensors = dict(nnx.to_flat_state(state)), found.file.tensors
    for path, variable in leaves.items():
        parts = [tensors[name] for name in found.names_of(names.dotted(path))]
        leaves[path] = variable.replace(names.our_layout(path, parts))
    return nnx.merge(graph, nnx.from_flat_state(leaves))


def _resized(found: Recognized, model: Model, image_size: int | None) -> Facts:
    """Interpolate the positions of a transformer if asked; return the facts about the images."""
    facts = facts_of(found.scheme.images, f"default of {found.scheme.network.__name__}")
    if isinstance(model, ViT):
        origin = f"{found.names_of('positions')[0]} of {found.file.path.name}"
        facts["image_size"] = Fact(model.image_size, origin)
    if image_size is None:
        return facts
    facts["image_size"] = Fact(image_size, "--image-size")
    if isinstance(model, ViT) and image_size != (before := model.image_size):
        side = image_size // model.patches.kernel_size[0]
        model.positions.set_value(resized(model.positions[...], side))
        model.image_size = image_size
        rule = f"interpolated from {before} x {before} as timm does"
        facts["positions"] = Fact(rule, "--image-size")
    return facts


def save_pretrained(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model as a safetensors file for `load_pretrained` and for torch's own code.

    A ResNet gets the names of torchvision and timm, a ViT those of timm, an EfficientNetLite0 its
    own, in float32. Loading it again gives the same bits. The file is whole, or not there at all.

    Examples:
      >>> import tempfile
      >>> from flax import nnx
      >>> from safetensors.numpy import load_file
      >>> from optax_dtnh.models import resnet18, save_pretrained
      >>> path = tempfile.mkdtemp() + "/resnet18.safetensors"
      >>> save_pretrained(resnet18(width=8, classes=3, rngs=nnx.Rngs(0)), path)
      >>> load_file(path)["layer4.0.downsample.0.weight"].shape
      (64, 32, 1, 1)

    Args:
      model: A `ResNet`, `ViT` or `EfficientNetLite0`.
      path: Where to write or replace a file, in an existing folder, ending in `.safetensors`.

    Raises:
      TypeError: `model` is another one, or has parameters that float32 does not hold.
      CheckpointError: `path` has another ending.
      OSError: The file cannot be written.
    """
    path = Path(path)
    scheme = next((x for x in names.SCHEMES if isinstance(model, x.network)), None)
    if scheme is None:
        raise TypeError(
            "`model` should be a ResNet, a ViT or an EfficientNetLite0, got "
            f"{type(model).__name__}. Pass what `load_pretrained` or `resnet50` returns."
        )
    if path.suffix != ".safetensors":
        raise CheckpointError(f"`path` should end in .safetensors, got {path.name}. Rename it.")
    tensors = {
        names.names_of(scheme, names.dotted(at))[0]: _tensor(at, x[...])
        for at, x in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    }
    metadata = {"format": "pt"}
    if isinstance(model, ViT):
        metadata |= {key: str(getattr(model, name)) for key, name in agreement.METADATA.items()}
    try:
        # Not `save_file`, which lets nobody else read the file.
        atomically(path, lambda partial: partial.write_bytes(save(tensors, metadata)))
    except (OSError, ValueError) as error:
        raise OSError(
            f"{str(path)!r} cannot be written ({error}). Check that its folder exists, that you "
            "may write there, that there is space, and that it is no folder."
        ) from error


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` write another file, and move it to `path` once it is whole."""
    partial = path.with_name(PARTIAL + path.name)
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _tensor(path: tuple[Any, ...], array: jax.Array) -> np.ndarray:
    if str(array.dtype) not in names.EXACT:
        raise TypeError(
            f"`model` should have parameters that float32 holds exactly, got {array.dtype} at "
            f"{names.dotted(path)}. Round them yourself, as with `jax.tree.map`."
        )
    tensor = names.their_layout(path, np.asarray(array, np.float32))
    return np.ascontiguousarray(tensor)  # a transposed view would be written untransposed
