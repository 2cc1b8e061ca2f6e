"""Networks of jax-image-models, tiny and with random weights, train against their teachers."""

import jax
import jax.numpy as jnp
import jimm
import optax
import pytest
from flax import nnx
from jimm.common.sharding import NoSharding

from optax_dtnh import dtnh, value_and_grad_pair
from optax_dtnh.models import backbone_mask, replace_head, teacher_view
from optax_dtnh.regularizers import feature_distance
from tests.core.helpers import assert_close, assert_equal, minus, norm
from tests.models.networks import variables

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LABELS = jnp.array([0, 1, 2, 1])
SIZE = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "mlp_dim": 32, "img_size": 28}
OPTIONS = {"patch_size": 14, "sharding": NoSharding, **SIZE}
HEAD = "classifier"
encode = nnx.jit(lambda model, images: model.encoder(images))


class Tower(nnx.Module):
    """A tower without a head, and one for it."""

    def __init__(self):
        self.encoder = jimm.DINOv2Model(**OPTIONS)
        self.classifier = nnx.Linear(64, 10, rngs=nnx.Rngs(1))


@pytest.fixture(autouse=True)
def _as_the_networks_ask():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh), jax.numpy_rank_promotion("allow"):
        yield


@nnx.jit(donate_argnums=(0, 1))
def step(model, optimizer, teacher, images):
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    pretrained = teacher.encoder(images)

    def losses(params):
        copy = nnx.merge(graph, params, rest, copy=True)
        features = copy.encoder(images)
        logits = copy.classifier(features)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()
        return (loss, feature_distance(features, pretrained)), nnx.state(copy, nnx.RngState)

    ((_, reg), drawn), pair = value_and_grad_pair(losses, has_aux=True)(params)
    nnx.update(model, drawn)
    optimizer.update(model, pair.loss_grads, reg_grads=pair.reg_grads)
    return reg, nnx.to_pure_dict(pair.loss_grads)


@pytest.mark.parametrize(
    "build", [Tower, lambda: jimm.VisionTransformer(10, dropout_rate=0.3, **OPTIONS)]
)
def test_a_network_trains_for_two_steps_against_its_teacher(build):
    source, images = build(), jax.random.normal(jax.random.key(0), (4, 28, 28, 3))
    teacher = teacher_view(source)
    before = encode(teacher, images)
    model = replace_head(source, 3, rngs=nnx.Rngs(2), head=HEAD)
    mask = backbone_mask(model, HEAD)
    tx = optax.chain(dtnh(0.1, mask=mask), optax.sgd(0.1))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    states = [variables(model, nnx.Param)]
    for _ in range(2):
        reg, loss_grads = step(model, optimizer, teacher, images)
        states.append(variables(model, nnx.Param))
    assert reg > 0
    moved = jax.tree.leaves_with_path(jax.tree.map(norm, minus(states[2], states[0])))
    assert [str(path[-1]) for path, x in moved if not x] == ["['vision_position_ids']"]
    of_loss = jax.tree.map(lambda w, g: w - 0.1 * g, states[1][HEAD], loss_grads[HEAD])
    assert_close(states[2][HEAD], of_loss)  # the head is outside the mask
    assert_equal(encode(teacher, images), before)
