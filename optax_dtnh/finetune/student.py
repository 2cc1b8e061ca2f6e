"""The network that is trained: its head is new, and parts of it may stay as they are."""

from collections.abc import Sequence
from itertools import islice

from flax import nnx

from optax_dtnh import all_but
from optax_dtnh.finetune import methods, step
from optax_dtnh.finetune.errors import UsageError
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


def check(settings: Settings, source: Model, layers: Sequence[str]) -> None:
    """Raise a `UsageError` where the network lacks what is frozen, or a regularizer has no use."""
    if settings.batch_norm == FROZEN and isinstance(source, ViT):
        raise UsageError(
            f"`--batch-norm {FROZEN}` should come with a network that has batch normalization, got "
            "a ViT. Leave it out."
        )
    names = list(parts(source))
    if unknown := sorted(set(settings.freeze) - set(names)):
        raise UsageError(
            f"`--freeze` should be among {', '.join(names)}, got {', '.join(unknown)}. Name "
            "parts of the network in --source, separated by spaces."
        )
    if settings.regularizer == FINETUNE:
        return
    last = layers[-1] if settings.regularizer in OF_MAPS else names[-1]
    if set(names[: names.index(last) + 1]) <= set(settings.freeze):
        raise UsageError(
            f"`--freeze` should leave something that {settings.method} pulls on, got all up to "
            f"{last}. Freeze less, or choose --method {FINETUNE}."
        )
