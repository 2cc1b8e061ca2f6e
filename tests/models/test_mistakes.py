"""Arguments that do not fit a model, and the sentence that each is answered with."""

import re

import jax.numpy as jnp
import pytest
from flax import nnx

from optax_dtnh import models
from tests.models.networks import build
from tests.models.test_model_transfer import Net

W, NONE = jnp.ones(2), "none.safetensors"


def head(classes=2, rngs=None, model=None, **where):
    rngs = rngs or nnx.Rngs(0)
    return models.replace_head(model or build("basic"), classes, rngs=rngs, **where)


def seen(kind, *shape, dtype="float32"):
    return build(kind)(jnp.zeros(shape, dtype))


def vit(**sizes):
    return models.ViT(**{"width": 64, "rngs": nnx.Rngs(0)} | sizes)


# What the answer says, in this order, and the mistake.
MISTAKES = {
    ValueError: [
        ("classes | >= 1 | 0", lambda: head(0)),
        ("classes | >= 1 | '5'", lambda: head("5")),
        ("head | 'classifier.layers.2'], got 'head'", lambda: head(model=Net(), head="head")),
        ("head | got ['norm']", lambda: head(model=Net(), head=["norm"])),
        ("tree | got | ['backbone']", lambda: models.backbone_mask({"backbone": W})),
        ("tree | got | ['head']", lambda: models.backbone_mask({"head": W})),
        ("tree | got []", lambda: models.backbone_mask(W)),
        ("tree | got | 'classifier'", lambda: models.backbone_mask(Net(), "class")),
        ("tree | got | 'classifier'", lambda: models.backbone_mask(Net(), lambda path, x: True)),
        ("images | height, width, 3] | 3, 32, 32", lambda: seen("basic", 4, 3, 32, 32)),
        ("images | 32, 32, 3] | 48, 48, 3", lambda: seen("transformer", 4, 48, 48, 3)),
        ("heads | 100, got 3", lambda: vit(width=100, heads=3)),
        ("heads | 96, got None", lambda: vit(width=96)),
        ("image_size | multiple of 16 | 40. Pass 32 or 48", lambda: vit(image_size=40)),
        ("image_size | multiple of 16 | 8. Pass 16 or 32", lambda: vit(image_size=8)),
        ("image_size | up to 16384 | 2097152. Pass 16368 or 16384", lambda: vit(image_size=2**21)),
        ("activation | gelu | 'mish'", lambda: vit(activation="mish")),
        ("heads | got True", lambda: models.load_pretrained(NONE, heads=True)),
        ("image_size | got 64.0", lambda: models.load_pretrained(NONE, image_size=64.0)),
    ],
    TypeError: [
        ("rngs | 1", lambda: head(rngs=1)),
        ("model | nnx.Module, got dict", lambda: models.teacher_view({"w": W})),
        ("model | ResNet | got Net", lambda: models.save_pretrained(Net(), NONE)),
        ("images | floating | uint8", lambda: seen("basic", 4, 32, 32, 3, dtype="uint8")),
        ("ignore | the string 'x'", lambda: models.load_pretrained(NONE, ignore="x")),
    ],
}
ROWS = [(error, *row) for error, rows in MISTAKES.items() for row in rows]


@pytest.mark.parametrize(("error", "said", "mistake"), ROWS)
def test_a_mistake_is_answered_with_what_to_do(error, said, mistake):
    in_order = "`" + ".*".join(map(re.escape, said.split(" | ")))
    with pytest.raises(error, match=in_order) as raised:
        mistake()
    assert re.fullmatch(r"`\w+` should .+, got .+\. .+\.", str(raised.value))
