"""The contenders in torch: the combination alone; fine-tuning is in `torch_finetune`."""

# Torch is in an environment of its own, see `make peers`.
# pyright: reportMissingImports=false

from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import inputs, torch_finetune
from benchmarks.peers.contender import WEIGHT, Contender, Spec
from benchmarks.peers.torch_rules import BY_HAND, aggregate, by_hand

Params = dict[str, Tensor]


def build(spec: Spec) -> Contender:
    """Return the contender of a specification."""
    torch.set_num_threads(spec["threads"])
    return {"combine": combination, "finetune": torch_finetune.build}[spec["task"]](spec)


def combination(spec: Spec) -> Contender:
    """Return the combination of two gradients that are given."""
    g, r = (
        {name: torch.from_numpy(x) for name, x in tree.items()}
        for tree in inputs.gradient_pair(spec["shapes"])
    )
    if spec["contender"] != BY_HAND:
        return aggregation(g, r, spec["contender"])
    d: list[Tensor] = []

    def run():
        d.clear()  # the last result is gone before the next, as in a training step
        d.extend(by_hand(list(g.values()), list(r.values()), WEIGHT))

    return Contender(run, lambda: {k: x.numpy() for k, x in zip(g, d, strict=True)})


def aggregation(g: Params, r: Params, contender: str) -> Contender:
    """Return the combination by TorchJD, of the loss's gradient and the weighted regularizer's."""
    params: dict[str, Any] = {name: torch.empty_like(x).requires_grad_() for name, x in g.items()}
    for name, param in params.items():
        param.jac = torch.stack([g[name], WEIGHT * r[name]])
    g.clear()
    r.clear()

    def run():
        for param in params.values():
            param.grad = None
        aggregate(list(params.values()), contender, keep=True)

    return Contender(run, lambda: {name: param.grad.numpy() for name, param in params.items()})
