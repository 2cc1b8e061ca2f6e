"""Facts that no tensor tells: where they come from, and what contradicts the tensors."""

import json

import numpy as np
import pytest
from flax import nnx

from optax_dtnh.models import ViT, load_pretrained, save_pretrained
from optax_dtnh.models import _pretrained as module
from optax_dtnh.models._fields import Fact
from optax_dtnh.models._names import names_of
from optax_dtnh.models._pretrained import load
from optax_dtnh.models._vit import PUBLISHED_HEADS
from tests.core.helpers import assert_equal
from tests.models.named_weights import (
    ONE_HEAD,
    headless,
    leaves,
    of_torch,
    refused,
    saved,
    tensors_of,
)
from tests.models.networks import images, run
from tests.models.schemes import HF_RESNET, HF_VIT, LITE0, TIMM_VIT, TV_RESNET, TV_VIT

pytestmark = pytest.mark.usefixtures("quickly_compiled")

PUBLISHED = {192: 3, 256: 4, 320: 5, 384: 6, 512: 8, 640: 10, 768: 12, 1024: 16, 1280: 16}
OTHERS = {(896, 2304): 14, (1152, 4304): 16, (1408, 6144): 16, (1664, 8192): 16}
CONFIG = {"model_type": "w", "num_attention_heads": 3, "hidden_act": "relu", "layer_norm_eps": 1e-9}
WIDER = {"model_type": "vit", "hidden_size": 768, "image_size": 16}
OWN = {"attention_heads": "6", "activation": "quick_gelu", "layer_norm_epsilon": "1e-05"}


def loaded(folder, width=384, hidden=None, config=None, metadata=None, **options):
    """The facts of a transformer with one block."""
    sizes = {"hidden": hidden, "heads": 1, "blocks": 1, "image_size": 16, "classes": 3}
    model = nnx.eval_shape(lambda: ViT(width, **sizes, rngs=nnx.Rngs(0)))
    shapes = {path: x.shape for path, x in leaves(model).items()}
    zeros = {names_of(TIMM_VIT, p)[0]: of_torch(p, np.zeros(s, "f")) for p, s in shapes.items()}
    path = saved({name: np.ascontiguousarray(x) for name, x in zeros.items()}, folder, metadata)
    (folder / "config.json").write_text(json.dumps(config or {}))
    return load(path, **options).facts


def test_a_published_size_has_its_heads():
    assert PUBLISHED_HEADS == {(w, 4 * w): heads for w, heads in PUBLISHED.items()} | OTHERS


@pytest.mark.parametrize("size", [(64, 256), (768, 3000)])
def test_another_size_needs_its_heads(size, tmp_path):
    message = f"`heads` should be given for width {size[0]} .* none .*`download=True` fetches"
    refused(message, lambda: loaded(tmp_path, *size))
    assert loaded(tmp_path, *size, heads=2)["heads"] == (2, "--heads")


def test_an_argument_precedes_our_metadata_which_precede_files_beside_and_usual_values(tmp_path):
    def taken(**options):
        facts = loaded(tmp_path, **options)
        return [facts[name] for name in ("heads", "activation", "epsilon")]

    timm = "default of timm"
    assert taken() == [(6, "published sizes"), ("gelu", timm), (1e-6, timm)]
    assert taken(config=CONFIG) == [(x, "config.json") for x in (3, "relu", 1e-9)]
    own = taken(config=CONFIG, metadata=OWN)
    assert own == [(x, "weights.safetensors") for x in (6, "quick_gelu", 1e-5)]
    assert taken(config=CONFIG, metadata=OWN, heads=12)[0] == (12, "--heads")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, r"`heads` should .* of the width 384, got 5\. .* heads 5 \(--heads"),
        ({"config": CONFIG | {"num_attention_heads": 7}}, r"got 7\. .* heads 7 \(config.json"),
        ({"config": CONFIG | {"hidden_act": "mish"}}, r"of gelu, .*got 'mish'.* mish \(config.js"),
        ({"config": WIDER}, "should have width 768 by config.json, got 384 in"),
        (
            {"metadata": {"attention_heads": "six"}},
            "`attention_heads` in .* whole number .*, got 'six'",
        ),
        ({"metadata": {"layer_norm_epsilon": "NaN"}}, "a positive number, got nan"),
        ({"metadata": {"activation": "{0}"}}, r"got '\{0\}'.* activation \{0\} \(weights.saf"),
    ],
)
def test_values_that_no_network_has_are_refused_with_their_origin(options, message, tmp_path):
    refused(message, lambda: loaded(tmp_path, **options))


def test_heads_hidden_width_and_activation_are_kept_in_the_file(tmp_path):
    options = {"heads": 8, "hidden": 96, "activation": "quick_gelu", "epsilon": 1e-4}
    model = ViT(64, blocks=1, image_size=32, classes=3, **options, rngs=nnx.Rngs(0))
    save_pretrained(model, tmp_path / "m.safetensors")
    found = load_pretrained(tmp_path / "m.safetensors")
    assert {name: getattr(found, name) for name in options} == options
    assert_equal(run(found, images()), run(model, images()))


VIT = {"width": 64, "hidden": 256, "blocks": 2, "patch_size": 16, "model_image_size": 32}
VIT |= {"pool": "token", "qkv_bias": True, "heads": 1, "epsilon": 1e-3, "classes": 3}
RESNET = {"depths": (1, 2, 1, 1), "hidden_sizes": (4, 8, 16, 32), "block": "basic", "width": 32}
RESNET |= {"pool": "avg", "activation": "relu", "downsample_in_bottleneck": False, "classes": 3}


@pytest.fixture
def checked(monkeypatch, tmp_path):
    """Load tensors of which a configuration says what is given."""

    def checked(tensors, metadata=None, **facts):
        said = {name: Fact(value, "config.json") for name, value in facts.items()}
        monkeypatch.setattr(module, "facts_beside", lambda path: said)
        return load(saved(tensors, tmp_path, metadata)).facts

    return checked


def test_facts_that_agree_with_the_tensors_are_no_error(checked):
    vit, resnet = tensors_of(HF_VIT), tensors_of(HF_RESNET)
    assert checked(vit, **VIT)["epsilon"] == (1e-3, "config.json")
    assert checked(resnet, **RESNET).keys() == {"network"}
    checked(headless(vit), ONE_HEAD, pool="")
    checked(vit, ONE_HEAD, architecture="vit_x")
    checked(tensors_of(LITE0), architecture="tf_efficientnet_lite0.in1k")
    for classes in (0, 1000):  # of the head that was left out
        checked(headless(vit), ONE_HEAD, classes=classes)


@pytest.mark.parametrize(
    ("scheme", "name", "value", "message"),
    [
        (HF_VIT, "hidden", 128, "128 by config.json, got 256 in"),
        (TV_VIT, "patch_size", 14, "14 by config.json, got 16 in"),
        (HF_VIT, "classes", 1000, "1000 by config.json, got 3 in"),
        (TIMM_VIT, "pool", "avg", "'avg' by config.json, got 'token' in .*, a plain ViT"),
        (TIMM_VIT, "architecture", "deit3_x", "'deit3_x' by config.json, got 'ViT' in"),
        (HF_VIT, "qkv_bias", False, "False by config.json, got True in"),
        (HF_RESNET, "depths", (3, 4, 6, 3), r"\(3, 4, 6, 3\) by .* got \(1, 2, 1, 1\) in"),
        (HF_RESNET, "block", "bottleneck", "'bottleneck' by config.json, got 'basic' in"),
        (HF_RESNET, "downsample_in_first_stage", True, "True by config.json, got False in"),
        (TV_RESNET, "width", 2048, "2048 by config.json, got 32 in"),
        (LITE0, "heads", 12, "12 by config.json, got None in"),
    ],
)
def test_a_fact_that_contradicts_the_tensors(scheme, name, value, message, checked):
    message = f"`source` should have {name} {message}"
    refused(message, lambda: checked(tensors_of(scheme), ONE_HEAD, **{name: value}))
