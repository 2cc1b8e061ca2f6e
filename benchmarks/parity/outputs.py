"""What a network gives for a batch, and the same from our model and from torch's."""

import copy
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file

from benchmarks.parity.torch_models import Reference, package
from benchmarks.parity.weights import Tensors
from optax_dtnh.models._names import Model, Scheme, names_of


class Batch(NamedTuple):
    """Images, channels last, and the targets of a squared loss of the logits."""

    images: np.ndarray
    targets: np.ndarray


class Outputs(NamedTuple):
    """What one gradient computation gives."""

    logits: np.ndarray  # of the batch
    features: Tensors  # named maps, channels last
    gradients: Tensors  # of the mean squared error of the logits, by our parameters' paths
    statistics: Tensors  # the running means and variances afterwards, by our paths


def random_batch(size: int, image_size: int, classes: int, seed: int = 0) -> Batch:
    """Return standard normal images and targets."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((size, image_size, image_size, 3))
    return Batch(images, rng.standard_normal((size, classes)))


def of_model(model: Model, batch: Batch, *, train: bool, dtype: str) -> Outputs:
    """Return what our model gives, computed in `dtype`; the model stays as it is."""
    with jax.enable_x64(dtype == "float64"):
        model = nnx.clone(model, arrays=True)
        model.train() if train else model.eval()
        graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
        params, statistics, images, targets = jax.tree.map(
            lambda x: jnp.asarray(x, dtype), (*states, *batch)
        )

        def loss(params):
            net = nnx.merge(graph, params, statistics, copy=True)
            logits, features = net(images)
            after = nnx.state(net, nnx.BatchStat)
            return jnp.mean((logits - targets) ** 2), (logits, features, after)

        gradients, (logits, features, after) = jax.jit(jax.grad(loss, has_aux=True))(params)
        features = {name: np.asarray(x) for name, x in features.items()}
        return Outputs(np.asarray(logits), features, _by_path(gradients), _by_path(after))


def of_torch(
    reference: Reference, batch: Batch, like: Model, scheme: Scheme, *, train: bool, dtype: str
) -> Outputs:
    """Return what torch's network gives, computed in `dtype`, under the paths of the model `like`.

    The network stays as it is.
    """
    torch = package("torch")
    precision = getattr(torch, dtype)
    net, taps = copy.deepcopy((reference.net, reference.taps))
    net.to(precision).train(train)
    features = {}

    def keep(name, *call):
        x = call[-1][0] if isinstance(call[-1], tuple) else call[-1]
        x = x.detach().numpy()
        features[name] = (x.transpose(0, 2, 3, 1) if x.ndim == 4 else x).copy()  # channels last

    for name, module in taps.items():
        module.register_forward_hook(partial(keep, name))
    images, targets = (torch.as_tensor(x, dtype=precision) for x in batch)
    logits = net(images.permute(0, 3, 1, 2))
    logits = getattr(logits, "logits", logits)  # Hugging Face wraps them
    ((logits - targets) ** 2).mean().backward()
    after = tensors_of(net)
    for parameter in net.parameters():
        parameter.data = parameter.grad
    params, statistics = nnx.state(like, nnx.Param), nnx.state(like, nnx.BatchStat)
    return Outputs(
        logits.detach().numpy(),
        features,
        in_our_layout(tensors_of(net), scheme, _by_path(params)),
        in_our_layout(after, scheme, _by_path(statistics)),
    )


def tensors_of(net: Any) -> Tensors:
    """Return the tensors of a network of torch under the names that its files have."""
    if not hasattr(net, "save_pretrained"):
        return {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:  # in memory, Hugging Face has other names
        net.save_pretrained(folder)
        return load_file(Path(folder, "model.safetensors"))


def in_our_layout(tensors: Tensors, scheme: Scheme, paths: Mapping[str, Any]) -> Tensors:
    """Return the tensors of a checkpoint by our paths, channels last."""
    joined = {p: np.concatenate([tensors[n] for n in names_of(scheme, p)]) for p in paths}
    to_ours = {2: (1, 0), 4: (2, 3, 1, 0)}  # of kernels, by their dimensions
    return {
        p: x.transpose(to_ours[x.ndim]) if p.endswith("kernel") else x for p, x in joined.items()
    }


def _by_path(state: Any) -> Tensors:
    leaves = nnx.to_flat_state(state)
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in leaves}
