"""The network that is trained: its head is new, and parts of it may stay as they are."""

from collections.abc import Iterator
from itertools import islice

from flax import nnx

from optax_dtnh import all_but
from optax_dtnh.finetune import methods, step
from optax_dtnh.finetune.errors import UsageError, flag
from optax_dtnh.finetune.settings import FINETUNE, FROZEN, OF_MAPS, Settings
from optax_dtnh.models import EfficientNetLite0, ViT, replace_head
from optax_dtnh.models._efficientnet import STAGES
from optax_dtnh.models._names import Model


def student(source: Model, classes: int, settings: Settings) -> step.Network:
    """Return the network before the first step; what is frozen is not among its parameters."""
    model = replace_head(source, classes, rngs=nnx.Rngs(settings.seed))
    if settings.batch_norm == FROZEN:
        model.eval()
    if not settings.freeze:
        return step.split(model)
    modules = [name for part in settings.freeze for name in parts(model)[part]]
    trained = dict(nnx.to_flat_state(all_but(*modules)(nnx.as_pure(nnx.state(model, nnx.Param)))))
    return step.split(model, lambda path, _: trained.get(path, False))


def parts(model: Model) -> dict[str, list[str]]:
    """Return the modules of every part that can be frozen, by its name, from first to last."""
    if isinstance(model, ViT):
        blocks = {f"block{i + 1}": [f"blocks/{i}"] for i in range(len(model.blocks))}
        return {"stem": ["patches", "cls_token", "positions"], **blocks, "norm": ["norm"]}
    names = methods.feature_maps(model)
    if not isinstance(model, EfficientNetLite0):
        return {name: [name] for name in names}
    blocks = iter(range(len(model.blocks)))
    stages = [[f"blocks/{i}" for i in islice(blocks, count)] for count, *_ in STAGES]
    return dict(zip(names, [["stem"], *stages, ["last"]], strict=True))


def layers_of(settings: Settings, source: Model) -> tuple[str, ...]:
    """Return the names of the feature maps that are compared.

    Raises a `UsageError` where the settings do not fit the network.
    """
    for name, wanted in _misfits(settings, source):
        raise UsageError(f"`{flag(name)}` should {wanted}.")
    return methods.layers(settings, source)


def _misfits(settings: Settings, source: Model) -> Iterator[tuple[str, str]]:
    """Yield settings that do not fit the network, and what they should do."""
    names, maps = list(parts(source)), methods.feature_maps(source)
    for name, known in ("freeze", names), ("layers", maps):
        if unknown := sorted({*getattr(settings, name)} - {*known}):
            yield name, f"be among {', '.join(known)}, got {', '.join(unknown)}. Name some of these"
    method, alike, is_vit = settings.method, settings.regularizer, isinstance(source, ViT)
    if is_vit and settings.batch_norm == FROZEN:
        yield "batch_norm", "come with batch normalization, got a ViT without it. Leave it out"
    last = methods.layers(settings, source)[-1] if alike in OF_MAPS else names[-1]
    if method != FINETUNE and {*names[: names.index(last) + 1]} <= {*settings.freeze}:
        yield "freeze", f"leave something that {method} pulls on, got all up to {last}. Freeze less"
    if is_vit and alike == "delta":
        yield "method", f"be another for a ViT, got {method}, which closes channels. Change it"
    if source.head is None and alike == "distillation":
        yield "method", f"be another for a checkpoint without a head, got {method}. Change it"
