"""The contenders in torch: the combination alone, and whole steps of small networks."""

# Torch is in an environment of its own, see `make peers`.
# pyright: reportMissingImports=false

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers import inputs, torch_finetune
from benchmarks.peers.contender import MOMENTUM, RATE, WEIGHT, Contender, Spec
from benchmarks.peers.inputs import Arrays
from benchmarks.peers.torch_rules import BY_HAND, aggregate, by_hand, by_torchjd

Params = dict[str, Tensor]


def build(spec: Spec) -> Contender:
    """Return the contender of a specification."""
    torch.set_num_threads(spec["threads"])
    task = {"combine": combination, "step": step, "finetune": torch_finetune.build}[spec["task"]]
    return task(spec)


def combination(spec: Spec) -> Contender:
    """Return the combination of two gradients that are given."""
    g, r = (
        {name: torch.from_numpy(x) for name, x in tree.items()}
        for tree in inputs.gradient_pair(spec["shapes"], spec["dtype"])
    )
    if spec["contender"] != BY_HAND:
        return aggregation(g, r, spec["contender"])
    d: list[Tensor] = []

    def run():
        d.clear()  # the last result is gone before the next, as in a training step
        d.extend(by_hand(list(g.values()), list(r.values()), WEIGHT))

    return Contender(run, lambda: {k: x.numpy() for k, x in zip(g, d, strict=True)}, {})


def aggregation(g: Params, r: Params, contender: str) -> Contender:
    """Return the combination by TorchJD, of the loss's gradient and the weighted regularizer's."""
    params = {name: torch.empty_like(x).requires_grad_() for name, x in g.items()}
    for name, param in params.items():
        cast(Any, param).jac = torch.stack([g[name], WEIGHT * r[name]])
    g.clear()
    r.clear()

    def run():
        for param in params.values():
            param.grad = None
        aggregate(list(params.values()), contender, keep=True)

    return Contender(run, lambda: {k: cast(Any, p.grad).numpy() for k, p in params.items()}, {})


def step(spec: Spec) -> Contender:
    """Return a step of a small network, SGD with momentum."""
    start, batch = inputs.problem(spec["network"], spec["dtype"])
    params = {name: _theirs(x).requires_grad_() for name, x in start.items()}
    losses = NETWORK_LOSSES[spec["network"]](params, batch)
    leaves = list(params.values())
    gradients = STEPS.get(spec["contender"]) or partial(torchjd_pair, spec["contender"])
    optimizer = torch.optim.SGD(leaves, RATE, MOMENTUM)

    def run():
        optimizer.zero_grad()
        gradients(*losses(), leaves)
        optimizer.step()

    def updates() -> Arrays:
        return {name: _ours(p.detach().numpy()) - start[name] for name, p in params.items()}

    return Contender(run, updates, flops_of(lambda: gradients(*losses(), leaves), leaves))


def flops_of(work: Callable[[], Any], leaves: list[Tensor]) -> dict[str, float]:
    """Return the flops of convolutions and matrix products; the gradients are gone afterwards."""
    with FlopCounterMode(display=False) as counter:
        work()
    for leaf in leaves:
        leaf.grad = None
    return {"flops": float(counter.get_total_flops())}


def single(loss: Tensor, reg: Tensor, leaves: list[Tensor]) -> None:  # noqa: ARG001
    """Leave one gradient, that of the weighted sum."""
    (loss + WEIGHT * reg).backward()


def pair_by_hand(loss: Tensor, reg: Tensor, leaves: list[Tensor]) -> None:
    """Leave the direction of two `autograd.grad` and the rule by hand."""
    g = torch.autograd.grad(loss, leaves, retain_graph=True)
    r = torch.autograd.grad(reg, leaves, materialize_grads=True)
    for leaf, d in zip(leaves, by_hand(g, r, WEIGHT), strict=True):
        leaf.grad = d


def torchjd_pair(contender: str, loss: Tensor, reg: Tensor, leaves: list[Tensor]) -> None:
    """Leave the direction of an aggregator of TorchJD."""
    by_torchjd([loss, WEIGHT * reg], leaves, contender)


# `(loss, reg, leaves)`, whose gradients are left in `.grad` of the leaves.
STEPS = {"single": single, BY_HAND: pair_by_hand}


def mlp(params: Params, batch: inputs.Batch) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return `losses() -> (loss, reg)` of a multilayer perceptron."""
    x, labels, f_s = map(torch.from_numpy, batch)

    def losses():
        h = x
        for i in range(inputs.MLP_LAYERS):
            h = F.relu(F.linear(h, params[f"hidden{i}"]))
        return F.cross_entropy(F.linear(h, params["head"]), labels), F.mse_loss(h, f_s)

    return losses


def cnn(params: Params, batch: inputs.Batch) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return `losses() -> (loss, reg)` of a residual network."""
    x, labels, f_s = map(torch.from_numpy, batch)
    x, f_s = (y.permute(0, 3, 1, 2).contiguous() for y in (x, f_s))

    def losses():
        h = F.relu(F.conv2d(x, params["stem"], padding=1))
        for stage in range(len(inputs.CNN_WIDTHS)):
            for block in range(inputs.CNN_BLOCKS):
                stride = 2 if stage and not block else 1
                h = _residual(h, params, f"stage{stage}.block{block}", stride)
        logits = F.linear(h.mean((2, 3)), params["head"])
        return F.cross_entropy(logits, labels), F.mse_loss(h, f_s)

    return losses


NETWORK_LOSSES = {"mlp": mlp, "cnn": cnn}


def _residual(x: Tensor, params: Params, name: str, stride: int) -> Tensor:
    y = F.relu(F.conv2d(x, params[f"{name}.first"], stride=stride, padding=1))
    skip = params.get(f"{name}.skip")
    shortcut = x if skip is None else F.conv2d(x, skip, stride=stride)
    return F.relu(F.conv2d(y, params[f"{name}.second"], padding=1) + shortcut)


def _theirs(kernel: np.ndarray) -> Tensor:
    axes = (1, 0) if kernel.ndim == 2 else (3, 2, 0, 1)
    return torch.from_numpy(kernel.transpose(axes).copy())


def _ours(kernel: np.ndarray) -> np.ndarray:
    return kernel.T if kernel.ndim == 2 else kernel.transpose(2, 3, 1, 0)
