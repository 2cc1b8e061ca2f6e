"""Checkpoints under five families of names: loaded and saved to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file

from optax_dtnh import models
from optax_dtnh.models import _pretrained as module
from optax_dtnh.models import load_pretrained, replace_head, save_pretrained, teacher_view
from optax_dtnh.models._names import names_of
from tests.core.helpers import assert_equal
from tests.models.named_weights import as_checkpoint, leaves, saved, small, tensors_of
from tests.models.networks import build, images, run
from tests.models.schemes import HF_RESNET, HF_VIT, LITE0, SCHEMES, TIMM_VIT, TV_RESNET

RESNETS = TV_RESNET, HF_RESNET
WRITTEN = [(TV_RESNET, TV_RESNET), (HF_VIT, TIMM_VIT), (LITE0, LITE0)]


def test_a_path_that_no_row_names_is_an_error_of_its_own():
    with pytest.raises(LookupError, match="no row of timm ViT names blocks.0.mixer.kernel"):
        names_of(TIMM_VIT, "blocks.0.mixer.kernel")


BLOCKS = [*((s, models.Basic) for s in SCHEMES), *((s, models.Bottleneck) for s in RESNETS)]


@pytest.mark.parametrize(("scheme", "block"), BLOCKS)
def test_every_family_of_names_is_recognized_and_loaded_bit_for_bit(scheme, block, tmp_path):
    model = small(scheme, block)
    found = load_pretrained(saved(as_checkpoint(scheme, model), tmp_path))
    assert type(found) is type(model)
    assert_equal(nnx.state(found), nnx.state(model))
    if scheme in RESNETS:
        assert isinstance(found.stage2[1], block)
    elif scheme is not LITE0:
        assert found.epsilon == (1e-12 if scheme is HF_VIT else 1e-6)
        assert found.image_size == 32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_weights_are_widened_exactly(dtype, tmp_path):
    wide = tensors_of(TV_RESNET).items()
    narrow = {n: x if x.dtype == "int64" else x.astype(dtype) for n, x in wide}
    found = load_pretrained(saved(narrow, tmp_path))
    expected = {n: np.asarray(x, "float32") for n, x in narrow.items() if x.dtype == dtype}
    written = as_checkpoint(TV_RESNET, found)
    assert_equal({n: x for n, x in written.items() if n in expected}, expected)


def test_the_model_is_in_training_mode_and_computes_in_the_dtype_that_is_asked_for(tmp_path):
    path = saved(tensors_of(TIMM_VIT), tmp_path)
    model = load_pretrained(path, dtype=jnp.bfloat16)
    assert {x.dtype for x in leaves(model).values()} == {jnp.dtype("float32")}
    outputs = nnx.eval_shape(run, model, images())
    assert {x.dtype for x in jax.tree.leaves(outputs)} == {jnp.dtype("bfloat16")}


def test_a_source_on_the_hub_is_fetched_and_its_digest_compared(monkeypatch, tmp_path):
    path, asked = saved(tensors_of(TV_RESNET), tmp_path), []
    monkeypatch.setattr(module, "hub_file", lambda *args, **how: asked.append((args, how)) or path)
    options = {"download": True, "cache_dir": tmp_path, "endpoint": "http://localhost"}
    load_pretrained("hf:owner/name", **options)
    assert asked == [(("hf:owner/name",), options)]
    with pytest.raises(ValueError, match="`sha256` should be the digest of"):
        load_pretrained(path, sha256="0" * 64)


@pytest.mark.parametrize(("scheme", "written"), WRITTEN)
def test_what_is_saved_has_names_of_torch_and_is_loaded_bit_for_bit(scheme, written, tmp_path):
    path = saved(tensors_of(scheme), tmp_path)
    model = replace_head(load_pretrained(path), 5, rngs=nnx.Rngs(0))
    save_pretrained(teacher_view(model), str(path))
    expected = as_checkpoint(written, model)
    assert_equal(load_file(path), {n: x for n, x in expected.items() if "num_batches" not in n})
    with safe_open(path, framework="numpy") as file:
        assert file.metadata()["format"] == "pt"
    found = load_pretrained(path)
    assert_equal(nnx.state(found), nnx.state(model))
    assert getattr(found, "epsilon", None) == getattr(model, "epsilon", None)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_narrow_parameters_are_saved_widened_and_wide_ones_not_at_all(tmp_path):
    model, path = build("basic"), tmp_path / "model.safetensors"
    narrow = model.head.kernel[...].astype(jnp.bfloat16)
    model.head.kernel.set_value(narrow)
    save_pretrained(model, path)
    assert_equal(load_file(path)["fc.weight"], np.asarray(narrow.T, "float32"))
    with jax.enable_x64(True):
        model.head.kernel.set_value(narrow.astype("float64"))
        message = "`model` should have parameters .* got float64 at head.kernel. Round"
        with pytest.raises(TypeError, match=message):
            save_pretrained(model, path)
