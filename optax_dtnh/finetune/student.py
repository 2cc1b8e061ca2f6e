"""The network that is trained: its head is new, and parts of it may stay as they are."""

from collections.abc import Iterator, Sequence
from itertools import islice

from flax import nnx

from optax_dtnh import all_but
from optax_dtnh.finetune import methods, step
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


def misfits(settings: Settings, source: Model, layers: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with settings that do not fit to the network and its feature maps."""
    method, names = settings.method, list(parts(source))
    if settings.batch_norm == FROZEN and isinstance(source, ViT):
        wrong = f"`--batch-norm {FROZEN}` should come with a network that has batch normalization"
        yield f"{wrong}, got a ViT. Leave it out."
    if unknown := sorted(set(settings.freeze) - set(names)):
        wrong = f"`--freeze` should be among {', '.join(names)}, got {', '.join(unknown)}"
        yield f"{wrong}. Name parts of the network in --source, separated by spaces."
    last = layers[-1] if settings.regularizer in OF_MAPS else names[-1]
    if method != FINETUNE and {*names[: names.index(last) + 1]} <= {*settings.freeze}:
        wrong = f"`--freeze` should leave something that {method} pulls on, got all up to {last}"
        yield f"{wrong}. Freeze less, or choose --method {FINETUNE}."
    if source.head is None and settings.regularizer == "distillation":
        wrong = f"`--method` should be another than {method} for a checkpoint without a head"
        mend = "Distillation compares the logits of the pretrained head."
        yield f"{wrong}, got '{settings.source}'. {mend}"
