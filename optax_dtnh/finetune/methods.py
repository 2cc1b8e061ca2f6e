"""The methods as data: a regularizer, its weight against the loss, and an optimizer.

`dtnh(weight, rule=...)` forms the sum for a regularizer with a gradient of its own, `add_l2_sp` for
L2-SP. Without DTNH the rule is `plain`, so that nothing else differs. The form decides where the
sum meets the optimizer, see `forms`. The new head is masked out and decays on its own.
"""

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import optax_dtnh
from optax_dtnh import GradientPair, add_l2_sp, conflict_report, dtnh, regularizers
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


# From the outputs s and t of the trained and the pretrained network, weights w of channels and the
# temperature T to a scalar. Fine-tuning and L2-SP are missing: neither has a second gradient.
REGULARIZERS: dict[str, Callable[..., jax.Array]] = {
    "feature_distance": lambda s, t, *_: regularizers.feature_distance(s.maps, t.maps),
    "delta": lambda s, t, w, _: regularizers.attention_feature_distance(s.maps, t.maps, w),
    "distillation": lambda s, t, _, T: regularizers.distillation(s.logits, t.logits, temperature=T),
    "bss": lambda s, *_: regularizers.batch_spectral_shrinkage(s.pooled),
}
# Those that need the pretrained network's outputs.
WITH_TEACHER = ("feature_distance", "delta", "distillation")
# The gradient of L2-SP for a form that takes a pair: what `add_l2_sp` adds to 0.
_PULL = add_l2_sp(1.0, mask=backbone_mask, rule=optax_dtnh.plain)
PULL = optax_dtnh.transform_pair(reg=optax.chain(optax.set_to_zero(), _PULL))


def transformation(settings: Settings) -> optax.GradientTransformation:
    """Return the method as an optax transformation of a `GradientPair`.

    Methods without a second gradient ignore that of the pair.
    """
    limit, decay = settings.clip_norm, _decay(settings)
    # After the sum of the form `before`: in front of it, the two gradients would share a norm.
    clip = optax.identity() if limit is None else optax.clip_by_global_norm(limit)
    coupled, decoupled = optax.chain(clip, decay), optax.identity()
    if settings.optimizer == "adamw":
        coupled, decoupled = clip, decay
    if settings.regularizer == FINETUNE:
        direction = forms.of_loss_grads(optax.chain(coupled, _direction(settings)))
    else:
        direction = _regularized(settings, coupled)
    rate = optax.scale_by_learning_rate(learning_rate(settings))
    return optax.chain(direction, decoupled, rate)


def _decay(settings: Settings) -> optax.GradientTransformation:
    """Return the weight decay: with a regularizer, head and backbone decay apart."""
    decay = optax.add_decayed_weights
    if settings.regularizer == FINETUNE:
        return decay(settings.weight_decay or 0.0)
    head = decay(settings.head_decay, mask=head_mask)
    return optax.chain(head, decay(settings.weight_decay or 0.0, mask=backbone_mask))


def _decision(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `dtnh` or `add_l2_sp`: weight, mask, rule and labels."""
    rule = getattr(optax_dtnh, settings.rule or "truncate")
    options = {"weight": settings.weight, "mask": backbone_mask, "rule": rule}
    if settings.granularity not in (None, "tree"):
        options |= {"labels": getattr(optax_dtnh, f"per_{settings.granularity}")}
    return options


def _regularized(
    settings: Settings, prepare: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Return the direction of the optimizer with the regularizer, in the form of the settings."""
    options = _decision(settings)
    if settings.reference_decay:
        smoothed = optax.ema(settings.reference_decay, accumulator_dtype=jnp.float32)
        options |= {"reference": smoothed}
    form, anchored = forms.FORMS[settings.form or "before"], settings.regularizer == "l2_sp"
    in_place = anchored and not form.takes_pair
    tx = form.build(add_l2_sp if in_place else dtnh, _direction(settings), prepare, **options)
    if in_place:
        return forms.of_loss_grads(tx)
    return optax.chain(PULL, tx) if anchored else tx


def compared(
    settings: Settings, pair: GradientPair, params: Any, opt_state: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return conflict, cosine and ratio of one step, from its gradients and the state after it.

    They are zeros for methods with one gradient. Else they are of what DTNH compares: the momenta
    in the form `momentum`, the averaged gradient as reference if there is one. In the form `metric`
    they are of the gradients, without the metric. They are cheap in every step; for a line of the
    log alone they would need both gradients again.
    """
    if settings.regularizer == FINETUNE:
        zero = jnp.zeros([])
        return zero, zero, zero
    (g, r), options = pair, _decision(settings)
    if settings.form == "momentum":
        (_, g), (_, r) = optax.tree.get_all_with_path(opt_state, "trace")
    elif settings.regularizer == "l2_sp":
        r, options["anchor"] = params, optax.tree.get(opt_state, "anchor")
    if settings.reference_decay:
        options["reference"] = optax.tree.get(opt_state, "ema")
    report = conflict_report(g, r, depth=0, **options)
    if settings.granularity != "element":  # whose state knows no conflict
        _, report["conflict"] = optax.tree.get_all_with_path(opt_state, "conflict")[-1]
    return report["conflict"], report["cosine"], report["ratio"]


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
    start, warmup = settings.learning_rate, settings.warmup
    end = round(DROP_AT * settings.steps) if settings.schedule == "step" else settings.steps
    if warmup >= end:
        raise UsageError(
            f"`--warmup` should be below {end}, the step at which --schedule {settings.schedule} "
            f"{'drops' if end < settings.steps else 'ends'}, got {warmup}. Lower it."
        )
    if settings.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(start, end - warmup)
    else:
        drops = {end - warmup: DROP} if settings.schedule == "step" else {}
        schedule = optax.piecewise_constant_schedule(start, drops)
    return optax.join_schedules([optax.linear_schedule(0.0, start, warmup), schedule], [warmup])


def _direction(settings: Settings) -> optax.GradientTransformation:
    return optax.trace(MOMENTUM) if settings.optimizer == "sgd" else optax.scale_by_adam()


def layers(settings: Settings, model: Model) -> tuple[str, ...]:
    """Return the names of the feature maps to compare, in the order of the network."""
    names = feature_maps(model)
    usual = names[1:]
    if isinstance(model, ViT):
        count = min(VIT_MAPS, len(names))
        usual = [names[math.ceil(len(names) * (i + 1) / VIT_MAPS) - 1] for i in range(count)]
    return tuple(name for name in names if name in (settings.layers or usual))


def feature_maps(model: Model) -> list[str]:
    """Return the names of the feature maps, in the order of the network."""
    if isinstance(model, ViT):
        return [f"block{i + 1}" for i in range(len(model.blocks))]
    return ["stem", *(f"stage{i + 1}" for i in range(model.stages))]


def pooled(model: Model, features: dict[str, jax.Array]) -> jax.Array:
    """Return the input of the head, from the last feature map."""
    last = features[feature_maps(model)[-1]]
    return model.norm(last[:, 0]) if isinstance(model, ViT) else jnp.mean(last, axis=(1, 2))
