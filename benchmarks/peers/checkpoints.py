"""A pretrained ResNet-18 and the same a step of training later, as files for both frameworks."""

from pathlib import Path

from flax import nnx
from safetensors.numpy import load_file, save_file

from benchmarks.peers.client import Client
from benchmarks.peers.contender import Spec
from optax_dtnh.models import resnet18, save_pretrained

SEED = 0  # with it, both regularizers conflict with the loss


def write(torch: Client, spec: Spec, folder: Path, seed: int = SEED) -> dict[str, str]:
    """Write both and return their paths by role.

    The student has followed the loss's gradient once, so that L2-SP pulls against the loss. It is
    torch that computes the gradient.
    """
    paths = {role: str(folder / f"{role}.safetensors") for role in ("teacher", "student")}
    model = resnet18(classes=spec["classes"], rngs=nnx.Rngs(seed))
    save_pretrained(model, paths["teacher"])
    same = spec | {"student": paths["teacher"], "teacher": paths["teacher"], "dtype": "float32"}
    torch.call("build", "first step", same | {"method": "none", "contender": "single"})
    moves, tensors = torch.updates("first step", folder), load_file(paths["teacher"])
    moved = {name: tensors[name] + moves[name] for name in moves}
    save_file(tensors | moved, paths["student"])
    torch.call("drop")
    return paths
