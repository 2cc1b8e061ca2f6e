"""Checkpoints as people have them: prefixes, no head, another resolution. Right, or refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from optax_dtnh import models
from optax_dtnh.models import load_pretrained, replace_head, save_pretrained, teacher_view
from optax_dtnh.models._checkpoint import CheckpointError
from optax_dtnh.models._pretrained import load
from optax_dtnh.models._vit import resized
from tests.core.helpers import assert_equal
from tests.models.named_weights import headless, refused, saved, small, tensors_of
from tests.models.networks import build, images, run
from tests.models.schemes import HF_VIT, SCHEMES, TIMM_VIT, TV_RESNET, TV_VIT

pytestmark = pytest.mark.usefixtures("quickly_compiled")
PREFIXES = ["_orig_mod.", "backbone.", "{0}%s.\\1.", "module.encoder_q.", "a.b.c.d."]


def prefixed(tensors, prefix):
    return {prefix + name: x for name, x in tensors.items()}


@pytest.mark.parametrize(
    ("scheme", "prefix"),
    [*itertools.product(SCHEMES, ["module."]), *zip(itertools.cycle(SCHEMES), PREFIXES)],
)
def test_what_stands_before_every_name_is_recognized(scheme, prefix, tmp_path):
    found = load_pretrained(saved(prefixed(tensors_of(scheme), prefix), tmp_path))
    assert_equal(nnx.state(found), nnx.state(small(scheme)))


@pytest.mark.parametrize(("one", "two"), [("student.", "teacher."), ("", "ema."), ("a.q.", "a.k.")])
def test_two_networks_are_refused_unless_one_is_ignored(one, two, tmp_path):
    both = [prefixed(tensors_of(TIMM_VIT), prefix) for prefix in (one, two)]
    path = saved(both[0] | both[1], tmp_path)
    message = f"one network, got .* with 2: ({one}patch_embed.*{two}patch_embed|{two}.*{one})"
    refused(message, lambda: load_pretrained(path))
    load_pretrained(path, ignore=both[1])


@pytest.mark.parametrize(("scheme", "prefix"), [*zip(SCHEMES, itertools.cycle(["", "module."]))])
def test_a_backbone_without_a_head_gives_pooled_features_and_takes_a_head(scheme, prefix, tmp_path):
    model, path = small(scheme), tmp_path / "model.safetensors"
    tensors = headless(tensors_of(scheme)).items()
    bare = {prefix + name.removeprefix(scheme.stem): x for name, x in tensors}
    if scheme is HF_VIT:
        bare[prefix + "pooler.dense.bias"] = np.ones(2, "f")
    found = load_pretrained(saved(bare, tmp_path))
    assert found.head is None
    pooled, _ = run(teacher_view(found), images())
    expected, _ = run(teacher_view(model), images())
    np.testing.assert_allclose(model.head(pooled), expected, rtol=1e-4, atol=1e-4)
    assert all(jax.tree.leaves(models.backbone_mask(found)))
    assert replace_head(found, 5, rngs=nnx.Rngs(0)).head.kernel.shape == (pooled.shape[1], 5)
    save_pretrained(found, path)
    again = load_pretrained(path)
    assert again.head is None
    assert_equal(nnx.state(again), nnx.state(found))


@pytest.mark.parametrize(
    ("count", "token"),
    [*((n, "cls_token") for n in (0, 1, 7, 9)), (4, "cls"), (6, "dist_token"), (9, "reg_token")],
)
def test_positions_that_are_no_square_and_a_class_token_are_refused(count, token, tmp_path):
    tensors = tensors_of(TIMM_VIT) | {"pos_embed": np.ones((1, count, 64), "f")}
    tensors[token] = tensors.pop("cls_token") if token == "cls" else tensors["cls_token"]
    message = rf"of another shape or dtype: pos_embed \[1, {count}, 64\] float32 instead of \[1, "
    refused(message, lambda: load_pretrained(saved(tensors, tmp_path)))


def test_older_files_of_torchvision_have_other_names_inside_a_block(tmp_path):
    older = {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): x
        for name, x in tensors_of(TV_VIT).items()
    }
    found = load_pretrained(saved(older, tmp_path))
    assert_equal(nnx.state(found), nnx.state(small(TV_VIT)))


@pytest.mark.parametrize("scheme", [TIMM_VIT, TV_VIT, HF_VIT])
def test_another_resolution_changes_the_positions_of_the_patches_alone(scheme, tmp_path):
    path = saved(tensors_of(scheme), tmp_path)
    before, (after, _, facts) = load(path), load(path, image_size=64)
    assert facts["image_size"] == (64, "--image-size")
    assert facts["positions"] == ("interpolated from 32 x 32 as timm does", "--image-size")
    network = f"{scheme.name}, 2 blocks, width 64, 3 classes"
    assert before.facts["network"] == (network, "weights.safetensors")
    assert before.facts["image_size"].value == before.model.image_size == 32
    old, new = before.model.positions[...], after.positions[...]
    assert_equal(load(path, image_size=32).model.positions[...], old)
    assert new.shape == (1, 17, 64)
    assert_equal(new[:, 0], old[:, 0])
    assert run(after, images(side=64))[0].shape == (4, 3)
    after.positions.set_value(old)
    assert_equal(nnx.state(after), nnx.state(before.model))


def test_positions_are_interpolated_by_the_cubic_of_timm():
    """From 0 and 1 to four: by hand, border left out."""
    first, second = -3 / 34, 0.2265625 / 1.09375
    found = resized(jnp.array([9, 0, 0, 1, 1], "f")[None, :, None], 4)[0, :, 0]
    rows = found[1:].reshape(4, 4)
    np.testing.assert_allclose(rows[:, 1], [first, second, 1 - second, 1 - first], rtol=1e-5)
    np.testing.assert_allclose(rows, rows[:, :1].repeat(4, 1), atol=1e-6)
    assert found[0] == 9


def test_a_resnet_takes_any_size_and_no_heads(tmp_path):
    bare = headless(tensors_of(TV_RESNET))
    resnet = saved(prefixed(bare, "net."), tmp_path)
    told = "torchvision or timm ResNet, 1-2-1-1 blocks, width 32, no head, prefix net."
    assert load(resnet, image_size=40).facts == {
        "network": (told, "weights.safetensors"),
        "image_size": (40, "--image-size"),
    }
    refused("should have heads 2 by --heads, got None in", lambda: load(resnet, heads=2))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("new/m.safetensors", OSError, "new/m.safetensors' cannot be written .*Check that its fol"),
        ("folder.safetensors", OSError, "cannot be written .* and that it is no folder"),
        ("a\0.safetensors", OSError, "cannot be written"),
        ("m.pth", CheckpointError, "`path` should end in .safetensors, got m.pth. Ren"),
    ],
)
def test_a_path_that_cannot_be_written_to_leaves_nothing(name, error, message, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        save_pretrained(build("basic"), tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.safetensors"]
