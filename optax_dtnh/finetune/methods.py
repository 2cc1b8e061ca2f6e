"""The methods as data: a regularizer, its weight against the loss, and an optimizer.

`dtnh(weight, rule=...)` forms the sum for a regularizer with a gradient of its own, `add_l2_sp` for
L2-SP. Without DTNH the rule is `plain`, so that nothing else differs. The form decides where the
sum meets the optimizer, see `forms`. The new head is masked out and decays on its own.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import optax_dtnh
from optax_dtnh import Rule, add_l2_sp, dtnh, regularizers
from optax_dtnh.finetune import forms
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.settings import FINETUNE, Settings
from optax_dtnh.models import ViT, backbone_mask
from optax_dtnh.models._names import Model

MOMENTUM = 0.9
DROP_AT, DROP = 2 / 3, 0.1  # the schedule `step`
VIT_MAPS = 4  # by default, as many as a ResNet has stages


class Outputs(NamedTuple):
    """The outputs of a network for a batch that regularizers use."""

    maps: dict[str, jax.Array]  # feature maps of the chosen layers, channels last
    pooled: jax.Array  # input of the head, [batch, features]
    logits: jax.Array | None  # of the pretrained head for `pooled`, None without that network


# From the outputs of the trained and of the pretrained network, the weights of channels and the
# temperature to a scalar. Fine-tuning and L2-SP are missing: neither has a second gradient.
REGULARIZERS: dict[str, Callable[..., jax.Array]] = {
    "feature_distance": lambda student, teacher, *_: regularizers.feature_distance(
        student.maps, teacher.maps
    ),
    "delta": lambda student, teacher, weights, _: regularizers.attention_feature_distance(
        student.maps, teacher.maps, weights
    ),
    "distillation": lambda student, teacher, _, temperature: regularizers.distillation(
        student.logits, teacher.logits, temperature=temperature
    ),
    "bss": lambda student, *_: regularizers.batch_spectral_shrinkage(student.pooled),
}
# Those that need the pretrained network's outputs.
WITH_TEACHER = ("feature_distance", "delta", "distillation")


def transformation(settings: Settings, rule: Rule | None = None) -> optax.GradientTransformation:
    """Return the method as an optax transformation of a `GradientPair`.

    Methods without a second gradient ignore that of the pair. `rule` is used instead of that of the
    settings.
    """
    rate = optax.scale_by_learning_rate(learning_rate(settings))
    if settings.regularizer == FINETUNE:
        decay = optax.add_decayed_weights(settings.weight_decay)
        return forms.of_loss_grads(optax.chain(decay, _direction(settings), rate))
    return optax.chain(_regularized(settings, rule), rate)


def _regularized(settings: Settings, rule: Rule | None) -> optax.GradientTransformation:
    """Return the direction of the optimizer with the regularizer, in the form of the settings."""
    rule = rule or getattr(optax_dtnh, settings.rule or "truncate")
    options = {"weight": settings.weight, "mask": backbone_mask, "rule": rule}
    if settings.granularity not in (None, "tree"):
        options |= {"labels": getattr(optax_dtnh, f"per_{settings.granularity}")}
    if settings.reference_decay:
        smoothed = optax.ema(settings.reference_decay, accumulator_dtype=jnp.float32)
        options |= {"reference": smoothed}
    form, l2_sp = forms.FORMS[settings.form or "before"], settings.regularizer == "l2_sp"
    in_place = l2_sp and not form.takes_pair
    decay = optax.add_decayed_weights(settings.head_decay, mask=head_mask)
    tx = form.build(add_l2_sp if in_place else dtnh, _direction(settings), decay, **options)
    if in_place:
        return forms.of_loss_grads(tx)
    return forms.of_l2_sp(tx) if l2_sp else tx


def l2_sp_value(params: Any, opt_state: Any) -> jax.Array:
    """Return `|w - w_s|^2 / 2` over the backbone, of a run whose state holds the anchor."""
    anchor, mask = optax.tree.get(opt_state, "anchor"), backbone_mask(params)
    trees = (jax.tree.map(lambda keep, x: x if keep else None, mask, t) for t in (params, anchor))
    return regularizers.l2_sp(*trees)


def head_mask(tree: Any) -> Any:
    """Return the opposite of `backbone_mask`: True for the head's parameters."""
    return jax.tree.map(operator.not_, backbone_mask(tree))


def learning_rate(settings: Settings) -> optax.Schedule:
    """Return the schedule, from the number of past steps to the learning rate."""
    start, steps = settings.learning_rate, settings.steps
    if settings.schedule == "cosine":
        return optax.cosine_decay_schedule(start, steps)
    drops = {round(DROP_AT * steps): DROP} if settings.schedule == "step" else {}
    return optax.piecewise_constant_schedule(start, drops)


def _direction(settings: Settings) -> optax.GradientTransformation:
    return optax.scale_by_adam() if settings.optimizer == "adam" else optax.trace(MOMENTUM)


def layers(settings: Settings, model: Model) -> tuple[str, ...]:
    """Return the names of the feature maps to compare, in the order of the network."""
    if settings.regularizer == "delta" and isinstance(model, ViT):
        raise UsageError(
            f"`--method` should be another than delta for a ViT, got {settings.method}. DELTA "
            "closes the channels of a convolutional network one by one."
        )
    names = feature_maps(model)
    if unknown := sorted(set(settings.layers) - set(names)):
        raise UsageError(
            f"`--layers` should be among {', '.join(names)}, got {', '.join(unknown)}. "
            "They are the feature maps of the network in --source."
        )
    chosen = settings.layers or _default_layers(model, names)
    return tuple(name for name in names if name in chosen)


def feature_maps(model: Model) -> list[str]:
    """Return the names of the feature maps, in the order of the network."""
    if isinstance(model, ViT):
        return [f"block{i + 1}" for i in range(len(model.blocks))]
    return ["stem", *(f"stage{i + 1}" for i in range(model.stages))]


def _default_layers(model: Model, names: list[str]) -> list[str]:
    if not isinstance(model, ViT):
        return names[1:]
    count = len(names)
    return [names[-(-count * (i + 1) // VIT_MAPS) - 1] for i in range(min(VIT_MAPS, count))]


def pooled(model: Model, features: dict[str, jax.Array]) -> jax.Array:
    """Return the input of the head, from the last feature map."""
    last = features[feature_maps(model)[-1]]
    return model.norm(last[:, 0]) if isinstance(model, ViT) else jnp.mean(last, axis=(1, 2))
