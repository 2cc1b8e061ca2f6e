"""One way to do a piece of work, and what is asked of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.peers.inputs import Arrays

WEIGHT = 0.5
RATE, MOMENTUM = 1e-3, 0.9
FINETUNE_WEIGHTS = {"l2_sp": 0.01, "knowdist": 1.0}
HEAD = "fc."  # what names of the head begin with in torchvision's checkpoints

Spec = dict[str, Any]


class Contender(NamedTuple):
    """A piece of work, ready to be done again and again."""

    run: Callable[[], None]  # do it once and wait for it
    updates: Callable[[], Arrays]  # what it has given or changed so far, by the names of `inputs`
