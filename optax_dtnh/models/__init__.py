"""Flax NNX reference models with pretrained weights: start, anchor and teacher of a transfer.

`load_pretrained` reads the checkpoints that people have, `replace_head` fits the model to a new
task, `backbone_mask` keeps the new head out of the regularizer, and `teacher_view` is the frozen
pretrained network. Every model returns `(logits, features)`, `features` a dict of named maps.

Needs the extra `models`: `pip install "optax-dtnh[models]"`.
"""

from optax_dtnh.models import _extra  # noqa: F401, before the imports that need the extra
from optax_dtnh.models._checkpoint import CheckpointError
from optax_dtnh.models._efficientnet import EfficientNetLite0
from optax_dtnh.models._pretrained import load_pretrained, save_pretrained
from optax_dtnh.models._resnet import (
    Basic,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from optax_dtnh.models._transfer import backbone_mask, replace_head, teacher_view
from optax_dtnh.models._vit import ViT, vit_base, vit_huge, vit_large, vit_small, vit_tiny

__all__ = [
    "Basic", "Bottleneck", "CheckpointError", "EfficientNetLite0", "ResNet", "ViT", "backbone_mask",
    "load_pretrained", "replace_head", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "save_pretrained", "teacher_view", "vit_base", "vit_huge", "vit_large", "vit_small", "vit_tiny",
]  # fmt: skip
