"""What the published names of torchvision's files tell about the images of a checkpoint."""

from pathlib import Path

from optax_dtnh.models._fields import Fact, Facts

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# File without suffix: image size, size before the crop, interpolation. From the metadata of the
# weights in torchvision 0.28.
FILES = {
    "resnet18-f37072fd": (224, 256, "bilinear"),
    "resnet34-b627a593": (224, 256, "bilinear"),
    "resnet50-0676ba61": (224, 256, "bilinear"),
    "resnet50-11ad3fa6": (224, 232, "bilinear"),
    "resnet101-63fe2227": (224, 256, "bilinear"),
    "resnet101-cd907fc2": (224, 232, "bilinear"),
    "resnet152-394f9c45": (224, 256, "bilinear"),
    "resnet152-f82ba261": (224, 232, "bilinear"),
    "vit_b_16-c867db91": (224, 256, "bilinear"),
    "vit_b_16_swag-9ac1b537": (384, 384, "bicubic"),
    "vit_b_16_lc_swag-4e70ced5": (224, 224, "bicubic"),
    "vit_b_32-d86f8d99": (224, 256, "bilinear"),
    "vit_l_16-852ce7e3": (224, 242, "bilinear"),
    "vit_l_16_swag-4f3808c9": (512, 512, "bicubic"),
    "vit_l_16_lc_swag-4d563306": (224, 224, "bicubic"),
    "vit_l_32-c7638314": (224, 256, "bilinear"),
    "vit_h_14_swag-80465313": (518, 518, "bicubic"),
    "vit_h_14_lc_swag-c1eb923e": (224, 224, "bicubic"),
}
HEADS = {"vit_b": 12, "vit_l": 16, "vit_h": 16}


def torchvision_facts(path: Path) -> Facts:
    """Return the facts of a file with one of the published names, none for any other file."""
    if path.stem not in FILES:
        return {}
    size, resize, interpolation = FILES[path.stem]
    model = path.stem.partition("-")[0].removesuffix("_swag").removesuffix("_lc")
    values = {"architecture": model, "image_size": size, "mean": MEAN, "std": STD}
    values |= {"interpolation": interpolation}
    if resize > size:
        values["resize"] = resize
    if model[:5] in HEADS:
        values["heads"] = HEADS[model[:5]]
    return {name: Fact(value, f"torchvision's {path.stem}") for name, value in values.items()}
