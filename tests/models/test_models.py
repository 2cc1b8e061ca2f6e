"""The models: sizes, names of the maps, modes, images, bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from optax_dtnh import models
from optax_dtnh.models import Basic, Bottleneck, ResNet, vit_small
from optax_dtnh.models._layers import BatchNorm
from optax_dtnh.models._pretrained import ONE_KEY
from tests.core.helpers import assert_equal, minus, norm
from tests.models.networks import build, each_network, images, loss_fn, run, statistics, variables

pytestmark = pytest.mark.usefixtures("quickly_compiled")

# Published numbers of parameters, with 1000 classes.
SIZES = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032}
SIZES |= {"resnet101": 44_549_160, "resnet152": 60_192_808, "EfficientNetLite0": 4_652_008}
SIZES |= {"vit_tiny": 5_717_416, "vit_small": 22_050_664, "vit_base": 86_567_656}
SIZES |= {"vit_large": 304_326_632, "vit_huge": 632_045_800}


@pytest.mark.parametrize("name", SIZES)
def test_every_size_has_its_published_number_of_parameters(name):
    model = nnx.eval_shape(lambda: getattr(models, name)(rngs=ONE_KEY))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))) == SIZES[name]


@pytest.mark.parametrize(("block", "expansion"), [(Basic, 1), (Bottleneck, 4)])
def test_a_resnet_returns_the_stem_and_four_stages_by_name(block, expansion):
    model = nnx.eval_shape(lambda: ResNet((1, 1, 1, 1), block, classes=67, rngs=ONE_KEY))
    logits, features = nnx.eval_shape(run, model, jnp.zeros((2, 97, 64, 3)))
    assert logits.shape == (2, 67)
    assert {name: x.shape for name, x in features.items()} == {
        "stem": (2, 49, 32, 64),
        "stage1": (2, 25, 16, 64 * expansion),
        "stage2": (2, 13, 8, 128 * expansion),
        "stage3": (2, 7, 4, 256 * expansion),
        "stage4": (2, 4, 2, 512 * expansion),
    }


def test_a_transformer_returns_the_tokens_of_every_block_by_name():
    model = nnx.eval_shape(lambda: vit_small(image_size=32, classes=5, rngs=ONE_KEY))
    logits, features = nnx.eval_shape(run, model, jnp.zeros((2, 32, 32, 3)))
    assert logits.shape == (2, 5)
    assert model.epsilon == 1e-6
    shapes = {name: x.shape for name, x in features.items()}
    assert shapes == {f"block{i}": (2, 5, 384) for i in range(1, 13)}


def test_training_mode_moves_every_statistic_once_by_torch_rule():
    model, x = build("basic"), images()
    before = statistics(model)
    maps = np.asarray(model.stem.conv(x), np.float64).reshape(-1, 8)
    run(model, x)
    np.testing.assert_allclose(model.stem.norm.mean[...], 0.1 * maps.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.stem.norm.var[...], 0.9 + 0.1 * maps.var(0, ddof=1), rtol=1e-5)
    moved = jax.tree.map(lambda a, b: bool((a != b).all()), before, statistics(model))
    assert all(jax.tree.leaves(moved))


def test_the_variance_of_values_far_from_zero_keeps_its_digits():
    x = 100 + np.random.default_rng(0).standard_normal((4, 8, 8, 2))
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    norm = BatchNorm(2, rngs=nnx.Rngs(0))

    def error():
        return np.abs(np.asarray(norm(jnp.asarray(x, jnp.float32))) - expected).max()

    assert error() < 1e-4
    norm.use_fast_variance = True  # Flax's default: the mean square less the squared mean
    assert error() > 1e-4


def test_a_single_value_per_channel_has_no_variance_in_training_mode():
    model, one = build("basic"), images(rows=1, side=8)
    message = r"`images` should give at least 2 values .* got shape \(1, 1, 1, 16\) .* `model.eval"
    with pytest.raises(ValueError, match=message):
        model(one)
    nnx.eval_shape(run, model, images(rows=2, side=8))
    model.eval()
    nnx.eval_shape(run, model, one)


@each_network
def test_bfloat16_is_for_computing_alone_and_stays_close_to_float32(kind):
    wide, narrow = build(kind), build(kind, dtype=jnp.bfloat16)
    assert_equal(variables(narrow), variables(wide))
    pairs = list(zip(*(jax.tree.leaves(run(m, images())) for m in (narrow, wide)), strict=True))
    narrow.eval()
    evaluated = jax.tree.leaves(nnx.eval_shape(run, narrow, images()))
    narrow.train()
    assert {x.dtype for x in [a for a, _ in pairs] + evaluated} == {jnp.dtype("bfloat16")}
    for a, b in pairs:
        assert 0 < norm(minus(a, b)) <= 4 * float(jnp.finfo(jnp.bfloat16).eps) * norm(b)
    moved = minus(statistics(wide), statistics(narrow))
    assert norm(moved) <= 1e-2 * norm(statistics(wide))
    grads = nnx.eval_shape(nnx.grad(loss_fn), narrow, images())
    for tree in (grads, variables(narrow)):
        assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
