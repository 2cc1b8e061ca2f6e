"""Two gradients to one direction, in torch: by hand, and by TorchJD's aggregators."""

# Torch is in an environment of its own, see `make peers`.
# pyright: reportMissingImports=false

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchjd.aggregation import MGDA, PCGrad, UPGrad
from torchjd.autojac import jac_to_grad

AGGREGATORS: dict[str, Callable[[], Any]] = {
    "TorchJD PCGrad": PCGrad,
    "TorchJD UPGrad": UPGrad,
    "TorchJD MGDA": MGDA,
    "TorchJD PCGrad, lean": PCGrad,
}
BY_HAND = "torch by hand"


def lean(contender: str) -> bool:
    """Return whether a contender uses TorchJD's options that save memory."""
    return contender.endswith("lean")


def by_hand(g: Sequence[Tensor], r: Sequence[Tensor], weight: float) -> list[Tensor]:
    """Return `g + weight * (r - min(<r, g>, 0) / <g, g> * g)`, in two passes over the leaves."""
    dot = torch.stack([(x * y).sum() for x, y in zip(r, g, strict=True)]).sum()
    ref_sq = torch.stack([(y * y).sum() for y in g]).sum()
    c = dot.clamp(max=0) / ref_sq
    return [torch.add(y * (1 - weight * c), x, alpha=weight) for x, y in zip(r, g, strict=True)]


def aggregate(params: Sequence[Tensor], contender: str, *, keep: bool = False) -> None:
    """Let TorchJD turn the Jacobians of `params` into their gradients."""
    options: dict[str, Any] = {"optimize_gramian_computation": True} if lean(contender) else {}
    jac_to_grad(params, AGGREGATORS[contender](), retain_jac=keep, **options)
