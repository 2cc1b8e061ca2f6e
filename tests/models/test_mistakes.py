"""Arguments that do not fit a model, and the sentence that each is answered with."""

import re

import jax.numpy as jnp
import pytest
from flax import nnx

from optax_dtnh import models
from tests.models.networks import build
from tests.models.test_foreign_networks import Net

W, NONE = jnp.ones(2), "none.safetensors"


def head(classes=2, rngs=None, model=None, **where):
    rngs = rngs or nnx.Rngs(0)
    return models.replace_head(model or build("basic"), classes, rngs=rngs, **where)


def seen(kind, *shape, dtype="float32"):
    return build(kind)(jnp.zeros(shape, dtype))


def vit(**sizes):
    return models.ViT(**{"width": 64, "rngs": nnx.Rngs(0)} | sizes)


CLASSES = "`classes` should be ... >= 1, got {}. Pass ..."
LINEAR = "`head` should be ... ['classifier.layers.0', 'classifier.layers.2'], got {}. Pass ..."
TREE = "`tree` should hold the parameters ... got {}. Pass ..."
IMAGES = "`images` should ...[batch, {}, 3], got [{}]. ..."
FLOATING = "`images` should be floating point, got {}. Scale ..."
HEADS = "`heads` should be a divisor of the width {}, got {}. Pass ..."
SIZE = "`image_size` should be a multiple of 16, ... up to 16384, got {}. Pass {}...."
NAMED = "`activation` should be one of gelu, ...got 'mish'..."
MODULE = "`model` should be an nnx.Module, got dict. For ..."
MODEL = "`model` should be a ResNet, a ViT or an EfficientNetLite0, got Net. Pass ..."
TYPE = "`{}` should be ..., got {}. Pass ..."
MISTAKES = [
    (CLASSES, "0", lambda: head(0)),
    (CLASSES, "'5'", lambda: head("5")),
    (TYPE, "rngs | 1", lambda: head(rngs=1)),
    (LINEAR, "'head'", lambda: head(model=Net(), head="head")),
    (LINEAR, "['norm']", lambda: head(model=Net(), head=["norm"])),
    (TREE, "...['backbone']...", lambda: models.backbone_mask({"backbone": W})),
    (TREE, "...['head']...", lambda: models.backbone_mask({"head": W})),
    (TREE, "[]", lambda: models.backbone_mask(W)),
    (TREE, "...'classifier'...", lambda: models.backbone_mask(Net(), "class")),
    (TREE, "...'classifier'...", lambda: models.backbone_mask(Net(), lambda path, x: True)),
    (MODULE, "", lambda: models.teacher_view({"w": W})),
    (MODEL, "", lambda: models.save_pretrained(Net(), NONE)),
    (IMAGES, "height, width | 4, 3, 32, 32", lambda: seen("basic", 4, 3, 32, 32)),
    (IMAGES, "32, 32 | 4, 48, 48, 3", lambda: seen("transformer", 4, 48, 48, 3)),
    (FLOATING, "uint8", lambda: seen("basic", 4, 32, 32, 3, dtype="uint8")),
    (HEADS, "100 | 3", lambda: vit(width=100, heads=3)),
    (HEADS, "96 | None", lambda: vit(width=96)),
    (HEADS, "0 | None", lambda: vit(width=0)),
    (SIZE, "40 | 32 or 48", lambda: vit(image_size=40)),
    (SIZE, "8 | 16 or 32", lambda: vit(image_size=8)),
    (NAMED, "", lambda: vit(activation="mish")),
    (TYPE, "ignore | the string 'x'", lambda: models.load_pretrained(NONE, ignore="x")),
    (TYPE, "heads | True", lambda: models.load_pretrained(NONE, heads=True)),
    (TYPE, "image_size | 64.0", lambda: models.load_pretrained(NONE, image_size=64.0)),
]
TYPE_ERRORS = [FLOATING, MODULE, MODEL, TYPE]


@pytest.mark.parametrize(("answer", "said", "mistake"), MISTAKES)
def test_a_mistake_is_answered_with_what_to_do(answer, said, mistake):
    with pytest.raises(TypeError if answer in TYPE_ERRORS else ValueError) as raised:
        mistake()
    expected = answer.format(*said.split(" | ")).split("...")
    assert re.fullmatch(".*".join(map(re.escape, expected)), str(raised.value), re.DOTALL)
