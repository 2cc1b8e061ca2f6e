"""What is compared, as data: pieces of work, and who does them."""

from typing import NamedTuple

from benchmarks.cost.trees import Shapes, resnet50, vit_base

TREES: dict[str, Shapes] = {"ResNet-50": resnet50(), "ViT-B": vit_base()}

JAX = ("ours", "optax by hand")
TORCH = (
    *("torch by hand", "TorchJD PCGrad", "TorchJD PCGrad, lean"),
    *("TorchJD UPGrad", "TorchJD MGDA"),
)
FRAMEWORK = {name: "jax" for name in JAX} | {name: "torch" for name in TORCH}
REFERENCE = "torch by hand"

IMAGES = {"batch": 8, "image": 96, "classes": 67}
PLAIN = {"l2_sp": "none", "knowdist": "knowdist sum"}  # what one gradient of the same work is
TITLES = {
    "none": "fine-tuning, one gradient",
    "l2_sp": "L2-SP",
    "knowdist sum": "KnowDist in the loss, one gradient",
    "knowdist": "KnowDist",
}


class Tuning(NamedTuple):
    """A fine-tuning step: a method, who computes it and in which framework."""

    method: str
    contender: str
    framework: str

    @property
    def name(self) -> str:
        """Return what tells it from the others."""
        return f"{self.method}, {self.contender}, {self.framework}"


SINGLE_STEPS = [
    Tuning(method, "single", framework)
    for method in ("none", "knowdist sum")
    for framework in ("jax", "torch")
]
TUNINGS = [
    Tuning(method, contender, FRAMEWORK[contender])
    for method in PLAIN
    for contender in ("ours", *TORCH[:3])
]
