"""Small models with weights from a seed, and their tensors under the names of a family."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from optax_dtnh.models import Basic, Bottleneck, CheckpointError, EfficientNetLite0, ResNet
from optax_dtnh.models._names import names_of
from tests.models.networks import MODELS, abstract
from tests.models.schemes import HF_RESNET, LITE0, TV_RESNET

RESNETS = {
    block: functools.partial(ResNet, (1, 2, 1, 1), block, width=4, classes=3)
    for block in (Basic, Bottleneck)
}


def small(scheme, block=Basic):
    """A model with two blocks in a row, statistics included, with distinct values everywhere."""
    make = RESNETS[block] if scheme in (TV_RESNET, HF_RESNET) else MODELS["transformer"]
    graph, state = abstract(EfficientNetLite0, classes=3) if scheme is LITE0 else abstract(make)
    rng = np.random.default_rng(0)

    def drawn(path, x):
        array = rng.standard_normal(x.shape)
        return jnp.asarray(abs(array) if "'var'" in jax.tree_util.keystr(path) else array, x.dtype)

    return nnx.merge(graph, jax.tree.map_with_path(drawn, state))


def of_torch(path, array):
    """Kernels with outputs and inputs first."""
    if path.endswith("kernel"):
        return array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
    return array


def leaves(model):
    return {".".join(map(str, p)): x for p, x in nnx.to_flat_state(nnx.state(model))}


def as_checkpoint(scheme, model):
    """The tensors of a model under the names of a scheme, the counters of torch among them."""
    tensors = {}
    for path, leaf in leaves(model).items():
        names = names_of(scheme, path)
        array = of_torch(path, np.asarray(leaf[...]))
        parts = np.split(array, len(names))
        tensors |= {n: np.ascontiguousarray(x) for n, x in zip(names, parts, strict=True)}
    means = [name for name in tensors if name.endswith("running_mean")]
    counters = [name.replace("running_mean", "num_batches_tracked") for name in means]
    return tensors | dict.fromkeys(counters, np.array(7, "int64"))


ONE_HEAD = {"attention_heads": "1"}  # 64 is no published width


def saved(tensors, folder, metadata=ONE_HEAD):
    path = folder / "weights.safetensors"
    save_file(tensors, path, metadata)
    return path


HEADS = ("fc.", "_fc.", "classifier.", "head.", "heads.")


def tensors_of(scheme, block=Basic):
    return as_checkpoint(scheme, small(scheme, block))


def headless(tensors):
    return {name: x for name, x in tensors.items() if not name.startswith(HEADS)}


def refused(message, call):
    """The text with which the call is refused: an error of ours, which says what to do."""
    with pytest.raises(CheckpointError, match=message) as raised:
        call()
    assert type(raised.value) is CheckpointError
    form = r"`\w+`( in '.+')? should .+, got .+\. [A-Z].+\."
    assert re.fullmatch(form, str(raised.value), re.DOTALL)
    return str(raised.value)
