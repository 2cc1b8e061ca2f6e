"""A fine-tuning step of a ResNet-18 in plain torch, batch normalization in training mode."""

# Torch is in an environment of its own, see `make peers`.
# pyright: reportMissingImports=false

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.peers import inputs
from benchmarks.peers.inputs import FINETUNE_WEIGHTS, HEAD, MOMENTUM, RATE, Contender, Spec
from benchmarks.peers.torch_combine import BY_HAND, by_hand, by_torchjd


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride > 1 or inputs != width:
            projection = nn.Conv2d(inputs, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's map."""
        y = torch.relu(self.bn1(self.conv1(x)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet18(nn.Module):
    """A ResNet-18 with torchvision's names; it returns logits and the map of the last stage."""

    def __init__(self, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for i, width in enumerate((64, 128, 256, 512), 1):
            blocks = Block(inputs, width, 2 if i > 1 else 1), Block(width, width, 1)
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
            inputs = width
        self.fc = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the last map of images, channels first."""
        x = self.pool(torch.relu(self.bn1(self.conv1(images))))
        for i in (1, 2, 3, 4):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean((2, 3))), x


class Task(NamedTuple):
    """What every method shares."""

    student: ResNet18  # in training mode
    teacher: ResNet18  # in evaluation mode, without gradients
    images: Tensor  # channels first
    labels: Tensor


def build(spec: Spec) -> Contender:
    """Return a step of `spec["method"]`, by hand or by TorchJD, from checkpoints."""
    torch.set_num_threads(spec["threads"])
    task = load(spec)
    before = {name: p.detach().clone() for name, p in task.student.named_parameters()}
    optimizer = torch.optim.SGD(task.student.parameters(), RATE, MOMENTUM)
    how = spec["method"], spec["contender"]
    gradients = METHODS.get(how) or partial(torchjd_pair, *how)

    def run():
        optimizer.zero_grad()
        gradients(task)
        optimizer.step()

    def updates():
        parameters = task.student.named_parameters()
        return {name: (p.detach() - before[name]).numpy() for name, p in parameters}

    return Contender(run, updates)


def load(spec: Spec) -> Task:
    """Return the task of two checkpoints."""
    networks = []
    for role in ("student", "teacher"):
        net, tensors = ResNet18(spec["classes"]), load_file(spec[role])
        counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
        net.load_state_dict(counters | tensors)  # JAX has no counters
        networks.append(net.to(getattr(torch, spec["dtype"])))
    x, labels = map(torch.from_numpy, inputs.images(spec))
    student, teacher = networks
    teacher.eval().requires_grad_(False)
    return Task(student.train(), teacher, x.permute(0, 3, 1, 2).contiguous(), labels)


def loss_and_map(task: Task) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and the last map."""
    logits, features = task.student(task.images)
    return F.cross_entropy(logits, task.labels), features


def distance(task: Task, features: Tensor) -> Tensor:
    """Return the regularizer of KnowDist."""
    with torch.no_grad():
        _, theirs = task.teacher(task.images)
    return F.mse_loss(features, theirs)


def backbone(net: ResNet18) -> list[Tensor]:
    """Return the parameters but for the head's."""
    return [p for name, p in net.named_parameters() if not name.startswith(HEAD)]


def none(task: Task) -> None:
    """Leave the loss's gradient."""
    loss_and_map(task)[0].backward()


def knowdist_sum(task: Task) -> None:
    """Leave the gradient of the weighted sum."""
    loss, features = loss_and_map(task)
    (loss + FINETUNE_WEIGHTS["knowdist"] * distance(task, features)).backward()


def pair_by_hand(method: str, task: Task) -> None:
    """Leave the direction of two gradients; that of L2-SP is formed without a backward pass."""
    w, head = backbone(task.student), list(task.student.fc.parameters())
    loss, features = loss_and_map(task)
    g = torch.autograd.grad(loss, [*w, *head], retain_graph=method == "knowdist")
    if method == "knowdist":
        r = torch.autograd.grad(distance(task, features), w)
    else:
        with torch.no_grad():
            r = [x - y for x, y in zip(w, backbone(task.teacher), strict=True)]
    d = [*by_hand(g[: len(w)], r, FINETUNE_WEIGHTS[method]), *g[len(w) :]]  # the head has no r
    for leaf, x in zip([*w, *head], d, strict=True):
        leaf.grad = x


# What leaves a direction in `.grad` of the student's parameters, without TorchJD.
METHODS: dict[tuple[str, str], Callable[[Task], None]] = {
    ("none", "single"): none,
    ("knowdist sum", "single"): knowdist_sum,
    ("l2_sp", BY_HAND): partial(pair_by_hand, "l2_sp"),
    ("knowdist", BY_HAND): partial(pair_by_hand, "knowdist"),
}


def torchjd_pair(method: str, contender: str, task: Task) -> None:
    """Leave the direction of an aggregator."""
    loss, features = loss_and_map(task)
    reg = distance(task, features) if method == "knowdist" else l2_sp(task)
    losses = [loss, FINETUNE_WEIGHTS[method] * reg]
    by_torchjd(losses, list(task.student.parameters()), contender)


def l2_sp(task: Task) -> Tensor:
    """Return half the squared distance to the pretrained weights."""
    pairs = zip(backbone(task.student), backbone(task.teacher), strict=True)
    return 0.5 * torch.stack([((x - y) ** 2).sum() for x, y in pairs]).sum()
