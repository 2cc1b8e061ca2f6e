"""Two gradients to one direction, in torch: by hand, and by TorchJD's aggregators; alone, timed."""

# Torch is in an environment of its own, see `make peers`.
# pyright: reportMissingImports=false

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchjd.aggregation import MGDA, PCD, PCGrad, UPGrad
from torchjd.autojac import backward, jac_to_grad

from benchmarks.peers import inputs
from benchmarks.peers.inputs import ORACLE, WEIGHT, Contender, Spec

Params = dict[str, Tensor]

AGGREGATORS: dict[str, Callable[[], Any]] = {
    "TorchJD PCGrad": PCGrad,
    "TorchJD UPGrad": UPGrad,
    "TorchJD MGDA": MGDA,
    "TorchJD PCGrad, lean": PCGrad,
}
BY_HAND = "torch by hand"


def by_hand(g: Sequence[Tensor], r: Sequence[Tensor], weight: float) -> list[Tensor]:
    """Return `g + weight * (r - c * g)` with `c = min(<r, g>, 0) / <g, g>`, in two passes."""
    # Flat: `(x * y).sum()` would store the products.
    r_flat, g_flat = ([x.reshape(-1) for x in tree] for tree in (r, g))
    dot = torch.stack([torch.dot(x, y) for x, y in zip(r_flat, g_flat, strict=True)]).sum()
    ref_sq = torch.stack([torch.dot(y, y) for y in g_flat]).sum()
    c = dot.clamp(max=0) / ref_sq
    return [(y * (1 - weight * c)).add_(x, alpha=weight) for x, y in zip(r, g, strict=True)]


def by_pcd(g: Sequence[Tensor], r: Sequence[Tensor], weight: float) -> list[Tensor]:
    """Return the same by TorchJD's PCD, which gives `r'` at the length of `r`, in float64.

    Its primary row is `r`, and nothing is asked for `g` but not to be opposed. The length of `r'`
    follows from `<r', r> = <r', r'>`. In float32, its Gramian of long rows is 1e-4 off.
    """
    rows = torch.stack([torch.cat([x.reshape(-1) for x in tree]).double() for tree in (r, g)])
    d = PCD(tau=0.0, eps=0.0)(rows)
    d *= torch.dot(d, rows[0]) / torch.dot(d, d)
    kept = d.split([y.numel() for y in g])
    return [y.add(x.view_as(y), alpha=weight) for x, y in zip(kept, g, strict=True)]


def aggregate(params: Sequence[Tensor], contender: str, *, keep: bool = False) -> None:
    """Let TorchJD turn the Jacobians of `params` into their gradients."""
    options: dict[str, Any] = {"optimize_gramian_computation": True} if _lean(contender) else {}
    jac_to_grad(params, AGGREGATORS[contender](), retain_jac=keep, **options)


def by_torchjd(losses: Sequence[Tensor], params: Sequence[Tensor], contender: str) -> None:
    """Leave the direction of an aggregator in `.grad`."""
    options: dict[str, Any] = {"parallel_chunk_size": 1} if _lean(contender) else {}
    backward(losses, inputs=params, **options)
    aggregate(params, contender)


def _lean(contender: str) -> bool:
    """Return whether a contender uses TorchJD's options that save memory."""
    return contender.endswith("lean")


def build(spec: Spec) -> Contender:
    """Return the combination of two gradients that are given."""
    torch.set_num_threads(spec["threads"])
    g, r = (
        {name: torch.from_numpy(x) for name, x in tree.items()}
        for tree in inputs.gradient_pair(spec["shapes"])
    )
    if spec["contender"] in AGGREGATORS:
        return aggregation(g, r, spec["contender"])
    direction, d = by_pcd if spec["contender"] == ORACLE else by_hand, []

    def run():
        d.clear()  # the last result is gone before the next, as in a training step
        d.extend(direction(list(g.values()), list(r.values()), WEIGHT))

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
