"""Torch's own networks, each with the submodules that give our feature maps."""

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.numpy import save_file

from benchmarks.parity.weights import Tensors, seeded
from optax_dtnh.models import Bottleneck, ResNet, ViT
from optax_dtnh.models._names import (
    HUGGING_FACE_RESNET,
    HUGGING_FACE_VIT,
    TIMM_VIT,
    TORCHVISION_RESNET,
    TORCHVISION_VIT,
    Scheme,
)
from optax_dtnh.models._vit import HEAD_WIDTH


class Library(NamedTuple):
    """Who builds a network of torch.

    Attributes:
      package: Its name, to import.
      scheme: How it names tensors in files.
      build: From a model of ours, of which it reads the sizes, to a module.
      taps: From the module to its submodules by the names of our feature maps.
    """

    package: str
    scheme: Scheme
    build: Callable[[Any], Any]
    taps: Callable[[Any], dict[str, Any]]


class Reference(NamedTuple):
    """A network of torch and the submodules that give our feature maps."""

    net: Any
    taps: dict[str, Any]


def package(name: str) -> Any:
    """Return an optional package.

    Raises:
      ImportError: It is not installed.
    """
    if name != "torch":
        declare_operators()
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"`{name}` should be importable, because models are compared with it, got {error!r}. "
            "Run `make parity`, which sets up .venv-parity, and use the Python in there."
        ) from error
    if name == "transformers":
        module.utils.logging.disable_progress_bar()
    return module


def seeded_reference(library: Library, model: ResNet | ViT) -> Reference:
    """Return the library's network of the size of `model`, with random weights and statistics."""
    torch, net = package("torch"), library.build(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    net.load_state_dict({name: torch.from_numpy(x) for name, x in seeded(shapes).items()})
    return Reference(net, library.taps(net))


def loaded_reference(
    library: Library, model: ResNet | ViT, tensors: Tensors, config: Path | None = None
) -> Reference:
    """Return the library's network of the size of `model` with the tensors of a checkpoint.

    Args:
      library: One whose naming scheme the checkpoint has.
      model: Of which the sizes are read.
      tensors: By their names in the checkpoint.
      config: The `config.json` of a Hugging Face checkpoint, if there is one: it can ask for more
        than sizes.

    Raises:
      ValueError: The network has other tensors.
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

    Without its operators, which no network here uses, it raises on import, and so do timm, which
    imports it, and transformers, which sees that it is installed.
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


# --- Sizes


def _stages(model: ResNet) -> list[Any]:
    return [getattr(model, f"stage{i}") for i in range(1, model.stages + 1)]


def _depths(model: ResNet) -> list[int]:
    return [len(stage) for stage in _stages(model)]


def _is_bottleneck(model: ResNet) -> bool:
    return isinstance(_stages(model)[0][0], Bottleneck)


def _patch_size(model: ViT) -> int:
    return model.patches.kernel_size[0]


def _blocks_by_name(blocks: Any) -> dict[str, Any]:
    return {f"block{i}": block for i, block in enumerate(blocks, 1)}


# --- torchvision


def _torchvision_resnet(model: ResNet) -> Any:
    resnet = package("torchvision").models.resnet
    block = resnet.Bottleneck if _is_bottleneck(model) else resnet.BasicBlock
    return resnet.ResNet(block, _depths(model), num_classes=model.head.out_features)


def _torchvision_vit(model: ViT) -> Any:
    width = model.patches.out_features
    return package("torchvision").models.VisionTransformer(
        model.image_size,
        _patch_size(model),
        num_layers=len(model.blocks),
        num_heads=width // HEAD_WIDTH,
        hidden_dim=width,
        mlp_dim=4 * width,
        num_classes=model.head.out_features,
    )


def _layers_by_name(net: Any) -> dict[str, Any]:
    return {f"stage{i}": getattr(net, f"layer{i}") for i in (1, 2, 3, 4)}


# --- timm


def _timm_resnet(model: ResNet) -> Any:
    resnet = package("timm").models.resnet
    block = resnet.Bottleneck if _is_bottleneck(model) else resnet.BasicBlock
    return resnet.ResNet(block, tuple(_depths(model)), num_classes=model.head.out_features)


def _timm_vit(model: ViT) -> Any:
    width = model.patches.out_features
    return package("timm").models.VisionTransformer(
        img_size=model.image_size,
        patch_size=_patch_size(model),
        embed_dim=width,
        depth=len(model.blocks),
        num_heads=width // HEAD_WIDTH,
        num_classes=model.head.out_features,
    )


# --- Hugging Face


def _hugging_face_resnet(model: ResNet) -> Any:
    transformers, width = package("transformers"), model.stem.conv.out_features
    first = width * _stages(model)[0][0].expansion
    config = transformers.ResNetConfig(
        embedding_size=width,
        hidden_sizes=[first * 2**i for i in range(model.stages)],
        depths=_depths(model),
        layer_type="bottleneck" if _is_bottleneck(model) else "basic",
        num_labels=model.head.out_features,
    )
    return transformers.ResNetForImageClassification(config)


def _hugging_face_vit(model: ViT) -> Any:
    transformers, width = package("transformers"), model.patches.out_features
    config = transformers.ViTConfig(
        hidden_size=width,
        num_hidden_layers=len(model.blocks),
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=4 * width,
        image_size=model.image_size,
        patch_size=_patch_size(model),
        num_labels=model.head.out_features,
    )
    return transformers.ViTForImageClassification(config)


def _hugging_face_stages(net: Any) -> dict[str, Any]:
    stages = {f"stage{i}": stage for i, stage in enumerate(net.resnet.encoder.stages, 1)}
    return {"stem": net.resnet.embedder.embedder, **stages}


# The first of a naming scheme is compared with what comes under it.
LIBRARIES = {
    "torchvision ResNet": Library(
        "torchvision",
        TORCHVISION_RESNET,
        _torchvision_resnet,
        lambda net: {"stem": net.relu, **_layers_by_name(net)},
    ),
    "timm ResNet": Library(
        "timm",
        TORCHVISION_RESNET,
        _timm_resnet,
        lambda net: {"stem": net.act1, **_layers_by_name(net)},
    ),
    "Hugging Face ResNet": Library(
        "transformers", HUGGING_FACE_RESNET, _hugging_face_resnet, _hugging_face_stages
    ),
    "torchvision ViT": Library(
        "torchvision",
        TORCHVISION_VIT,
        _torchvision_vit,
        lambda net: _blocks_by_name(net.encoder.layers),
    ),
    "timm ViT": Library("timm", TIMM_VIT, _timm_vit, lambda net: _blocks_by_name(net.blocks)),
    "Hugging Face ViT": Library(
        "transformers",
        HUGGING_FACE_VIT,
        _hugging_face_vit,
        lambda net: _blocks_by_name(net.vit.layers),
    ),
}


def library_of(scheme: Scheme) -> Library:
    """Return the library to compare a checkpoint of the naming scheme with."""
    return next(library for library in LIBRARIES.values() if library.scheme is scheme)
