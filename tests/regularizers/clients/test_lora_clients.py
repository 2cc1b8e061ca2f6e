"""The page on LoRA with qwix's adapters and tunix's trainer, on a tiny Llama."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from optax_dtnh import dtnh, plain
from optax_dtnh.regularizers import l2_sp
from tests.core.helpers import assert_equal, minus, norm
from tests.pages.pages import blocks, execute

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tunix's models
PAGE, WEIGHT, SGD = "docs/lora.md", 0.5, optax.sgd(0.5)


@pytest.fixture(scope="module")
def names():
    """What the page defines, after all of it has run."""
    with jax.numpy_rank_promotion("allow"):
        yield execute("\n".join(blocks(PAGE, "python")), PAGE)


def adapters(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.LoRAParam))


def trained(names, trainer, tx, losses, **options):
    """The adapters at the end of a run."""
    config = names["TrainingConfig"](eval_every_n_steps=100, **options)
    trainer = names[trainer](names["with_adapters"](), tx, config)
    trainer.with_gen_model_input_fn(names["model_inputs"]).with_loss_fn(losses, has_aux=True)
    trainer.train(names["batches"])
    return adapters(trainer.model)


RUNS = [("PairTrainer", {}), ("PeftTrainer", {})]
RUNS += [("PeftTrainer", {"gradient_accumulation_steps": 2})]


@pytest.mark.parametrize(("trainer", "options"), RUNS, ids=str)
def test_a_run_is_that_of_one_gradient_of_the_weighted_sum(names, trainer, options):
    losses, pair = names["token_losses"], trainer == "PairTrainer"

    def summed(weight):
        @functools.wraps(losses)  # tunix reads the names of the arguments
        def fun(model, *inputs):
            loss, reg = losses(model, *inputs)
            reg = reg if pair else names["anchor"](nnx.state(model, nnx.LoRAParam))
            return loss + weight * reg, reg

        return trained(names, "PeftTrainer", SGD, fun, **options)

    tx = optax.chain(dtnh(WEIGHT, rule=plain), SGD)
    tx = tx if pair else names["regularized"](tx, names["anchor"])
    found, expected = trained(names, trainer, tx, losses, **options), summed(WEIGHT)
    assert norm(minus(found, expected)) < 1e-3 * norm(minus(expected, summed(0.0)))


def test_the_anchor_of_the_factors_is_their_start(names):
    state = names["trainers"][0].optimizer.opt_state[0]
    assert_equal(nnx.to_pure_dict(nnx.as_pure(state.anchor)), adapters(names["with_adapters"]()))


def test_the_regularizer_is_l2_sp_of_the_weights_merged_into_the_base(names):
    model = names["pair_trainer"].model
    base, merged = (names["without_adapters"](model) for _ in range(2))
    weights, sums = flatten_dict(nnx.to_pure_dict(nnx.state(model, nnx.Param))), {}
    for *path, name in (path for path in weights if path[-1].endswith("_lora_a")):
        a, b, w = (weights[*path, name[:-7] + x] for x in ("_lora_a", "_lora_b", ""))
        change = names["ALPHA"] / names["RANK"] * jnp.tensordot(a, b, 1).reshape(w.shape)
        sums[*path, name[:-7]] = w + change
    nnx.update(merged, unflatten_dict(sums))
    inputs = names["model_inputs"](names["batches"][0])
    del inputs["input_mask"]
    logits = [network(cache=None, **inputs)[0] for network in (model, merged, base)]
    assert norm(logits[0] - logits[1]) < 1e-5 * norm(logits[0] - logits[2])
    expected = float(l2_sp(sums, {path: weights[path] for path in sums}))
    assert float(names["anchor"](adapters(model))) == pytest.approx(expected, rel=1e-5)
