"""Torch's own networks, each with the submodules that give our feature maps."""

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.numpy import save_file

from benchmarks.parity.weights import Tensors, seeded
from optax_dtnh.models import Bottleneck, ResNet, ViT, _names
from optax_dtnh.models._names import Model, Scheme


class Library(NamedTuple):
    """Who builds a network of torch."""

    package: str  # its name, to import
    scheme: Scheme  # how it names tensors in files
    build: Callable[[Any], Any]  # from a model of ours, of which it reads the sizes, to a module
    taps: Callable[[Any], dict[str, Any]]  # to the submodules by the names of our maps


class Reference(NamedTuple):
    """A network of torch and the submodules that give our feature maps."""

    net: Any
    taps: dict[str, Any]


def package(name: str) -> Any:
    """Return an optional package; the error says how to get it."""
    if name != "torch":
        declare_operators()
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"`{name}`, with which models are compared, cannot be imported: {error!r}. Run `make "
            "parity`, which sets up .venv-parity, or use the Python in there."
        ) from error
    if name == "transformers":
        module.utils.logging.disable_progress_bar()
    return module


def seeded_reference(library: Library, model: Model) -> Reference:
    """Return the library's network of the size of `model`, with random weights and statistics."""
    torch, net = package("torch"), library.build(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    net.load_state_dict({name: torch.from_numpy(x) for name, x in seeded(shapes).items()})
    return Reference(net, library.taps(net))


def loaded_reference(
    library: Library, model: Model, tensors: Tensors, config: Path | None = None
) -> Reference:
    """Return the library's network of the size of `model` with the tensors of a checkpoint.

    The `config.json` of a Hugging Face checkpoint, if there is one, can ask for more than sizes.
    """
    net = library.build(model)
    if hasattr(net, "save_pretrained"):
        net = _from_pretrained(net, tensors, library.scheme.excused, config)
    else:
        torch = package("torch")
        net.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in tensors.items()})
    return Reference(net, library.taps(net))


def _from_pretrained(net: Any, tensors: Tensors, excused: frozenset[str], config: Path | None):
    source = config or net.config
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder, "model.safetensors"), {"format": "pt"})
        options = {"config": source, "dtype": package("torch").float32, "output_loading_info": True}
        loaded, info = type(net).from_pretrained(folder, **options)
    wrong = {what: sorted(set(names) - excused) for what, names in info.items()}
    if any(wrong.values()):
        raise ValueError(
            f"`tensors` should be those of a {type(net).__name__}, got {wrong}. "
            "Compare a checkpoint of this architecture."
        )
    return loaded


OPERATORS: list[Any] = []  # as long as this is referenced, they exist


def declare_operators() -> None:
    """Let torchvision be imported where its compiled part is for another build of torch.

    Without its operators, which no network here uses, it, timm and transformers raise on import.
    """
    torch, found = package("torch"), importlib.util.find_spec("torchvision")
    if OPERATORS or found is None or _loads(torch, Path(str(found.origin)).parent):
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    OPERATORS.append(library)


def _loads(torch: Any, folder: Path) -> bool:
    try:
        for compiled in folder.glob("_C.*"):
            torch.ops.load_library(compiled)
    except OSError:
        return False
    return True


def classes_of(model: Model) -> int:
    """Return the number of logits, 0 for a network without a head."""
    return 0 if model.head is None else model.head.out_features


def _stages(model: ResNet) -> list[Any]:
    return [getattr(model, f"stage{i}") for i in range(1, model.stages + 1)]


def _sizes(model: ResNet) -> tuple[list[int], bool]:
    """Return the number of blocks of every stage, and whether they are bottlenecks."""
    stages = _stages(model)
    return [len(stage) for stage in stages], isinstance(stages[0][0], Bottleneck)


def _resnet(library: str, model: ResNet) -> Any:
    """Return the ResNet of torchvision or timm, which have the same interface."""
    resnet, (depths, bottleneck) = package(library).models.resnet, _sizes(model)
    block = resnet.Bottleneck if bottleneck else resnet.BasicBlock
    return resnet.ResNet(block, depths, num_classes=classes_of(model))


def _hugging_face_resnet(model: ResNet) -> Any:
    transformers, width = package("transformers"), model.stem.conv.out_features
    depths, bottleneck = _sizes(model)
    first = width * _stages(model)[0][0].expansion
    config = transformers.ResNetConfig(
        embedding_size=width,
        hidden_sizes=[first * 2**i for i in range(model.stages)],
        depths=depths,
        layer_type="bottleneck" if bottleneck else "basic",
        num_labels=classes_of(model),
    )
    return transformers.ResNetForImageClassification(config)


def _vit(model: ViT, names: str) -> dict[str, Any]:
    """Return the sizes of a transformer under the names of a library, which are in this order."""
    width, patch = model.patches.out_features, model.patches.kernel_size[0]
    sizes = model.image_size, patch, width, model.hidden, len(model.blocks), model.heads
    return dict(zip(names.split(), (*sizes, classes_of(model)), strict=True))


def _torchvision_vit(model: ViT) -> Any:
    names = "image_size patch_size hidden_dim mlp_dim num_layers num_heads num_classes"
    return package("torchvision").models.VisionTransformer(**_vit(model, names))


def _timm_vit(model: ViT) -> Any:
    names = "img_size patch_size embed_dim mlp_ratio depth num_heads num_classes"
    sizes = _vit(model, names)
    sizes["mlp_ratio"] /= sizes["embed_dim"]
    return package("timm").models.VisionTransformer(**sizes)


def _hugging_face_vit(model: ViT) -> Any:
    transformers = package("transformers")
    names = "image_size patch_size hidden_size intermediate_size num_hidden_layers "
    config = transformers.ViTConfig(**_vit(model, f"{names} num_attention_heads num_labels"))
    return transformers.ViTForImageClassification(config)


def _layers(stem: str, net: Any) -> dict[str, Any]:
    stages = {f"stage{i}": getattr(net, f"layer{i}") for i in (1, 2, 3, 4)}
    return {"stem": getattr(net, stem), **stages}


def _hugging_face_stages(net: Any) -> dict[str, Any]:
    stages = {f"stage{i}": stage for i, stage in enumerate(net.resnet.encoder.stages, 1)}
    return {"stem": net.resnet.embedder.embedder, **stages}


def _blocks(path: str, net: Any) -> dict[str, Any]:
    return {f"block{i}": block for i, block in enumerate(net.get_submodule(path), 1)}


# A checkpoint is compared with the first library that has its naming scheme.
RESNET = _names.TORCHVISION_RESNET  # timm's too
LIBRARIES = {
    "torchvision ResNet": Library(
        "torchvision", RESNET, partial(_resnet, "torchvision"), partial(_layers, "relu")
    ),
    "timm ResNet": Library("timm", RESNET, partial(_resnet, "timm"), partial(_layers, "act1")),
    "Hugging Face ResNet": Library(
        "transformers", _names.HUGGING_FACE_RESNET, _hugging_face_resnet, _hugging_face_stages
    ),
    "torchvision ViT": Library(
        "torchvision", _names.TORCHVISION_VIT, _torchvision_vit, partial(_blocks, "encoder.layers")
    ),
    "timm ViT": Library("timm", _names.TIMM_VIT, _timm_vit, partial(_blocks, "blocks")),
    "Hugging Face ViT": Library(
        "transformers", _names.HUGGING_FACE_VIT, _hugging_face_vit, partial(_blocks, "vit.layers")
    ),
}


def library_of(scheme: Scheme) -> Library:
    """Return the library to compare a checkpoint of the naming scheme with."""
    return next(library for library in LIBRARIES.values() if library.scheme.name == scheme.name)
