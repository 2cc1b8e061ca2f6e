"""Two gradients to one direction, in torch: by hand, and by TorchJD's aggregators."""

# Torch is in an environment of its own, see `make peers`.
# pyright: reportMissingImports=false

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchjd.aggregation import MGDA, PCGrad, UPGrad
from torchjd.autojac import backward, jac_to_grad

AGGREGATORS: dict[str, Callable[[], Any]] = {
    "TorchJD PCGrad": PCGrad,
    "TorchJD UPGrad": UPGrad,
    "TorchJD MGDA": MGDA,
    "TorchJD PCGrad, lean": PCGrad,
}
BY_HAND = "torch by hand"


def by_hand(g: Sequence[Tensor], r: Sequence[Tensor], weight: float) -> list[Tensor]:
    """Return `g + weight * (r - min(<r, g>, 0) / <g, g> * g)`, in two passes over the leaves."""
    # Flat: `(x * y).sum()` would store the products.
    r_flat, g_flat = ([x.reshape(-1) for x in tree] for tree in (r, g))
    dot = torch.stack([torch.dot(x, y) for x, y in zip(r_flat, g_flat, strict=True)]).sum()
    ref_sq = torch.stack([torch.dot(y, y) for y in g_flat]).sum()
    c = dot.clamp(max=0) / ref_sq
    return [(y * (1 - weight * c)).add_(x, alpha=weight) for x, y in zip(r, g, strict=True)]


def aggregate(params: Sequence[Tensor], contender: str, *, keep: bool = False) -> None:
    """Let TorchJD turn the Jacobians of `params` into their gradients."""
    options: dict[str, Any] = {"optimize_gramian_computation": True} if _lean(contender) else {}
    jac_to_grad(params, AGGREGATORS[contender](), retain_jac=keep, **options)


def by_torchjd(losses: Sequence[Tensor], params: Sequence[Tensor], contender: str) -> None:
    """Leave the direction of an aggregator in `.grad`; TorchJD takes the weighted losses."""
    options: dict[str, Any] = {"parallel_chunk_size": 1} if _lean(contender) else {}
    backward(losses, inputs=params, **options)
    aggregate(params, contender)


def _lean(contender: str) -> bool:
    """Return whether a contender uses TorchJD's options that save memory."""
    return contender.endswith("lean")
