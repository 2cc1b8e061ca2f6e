"""What the published names of torchvision's files tell about the images of a checkpoint."""

from pathlib import Path

from optax_dtnh.models._fields import Fact, Facts

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Image size, size before the crop and interpolation: files without suffix. From the metadata of the
# weights in torchvision 0.28.
IMAGES = {
    (224, 256, "bilinear"): """resnet18-f37072fd resnet34-b627a593 resnet50-0676ba61
        resnet101-63fe2227 resnet152-394f9c45 vit_b_16-c867db91 vit_b_32-d86f8d99
        vit_l_32-c7638314""",
    (224, 232, "bilinear"): "resnet50-11ad3fa6 resnet101-cd907fc2 resnet152-f82ba261",
    (224, 242, "bilinear"): "vit_l_16-852ce7e3",
    (224, 224, "bicubic"): """vit_b_16_lc_swag-4e70ced5 vit_l_16_lc_swag-4d563306
        vit_h_14_lc_swag-c1eb923e""",
    (384, 384, "bicubic"): "vit_b_16_swag-9ac1b537",
    (512, 512, "bicubic"): "vit_l_16_swag-4f3808c9",
    (518, 518, "bicubic"): "vit_h_14_swag-80465313",
}
FILES = {name: how for how, names in IMAGES.items() for name in names.split()}


def torchvision_facts(path: Path) -> Facts:
    """Return the facts of a file with one of the published names, none for any other file."""
    if path.stem not in FILES:
        return {}
    size, resize, interpolation = FILES[path.stem]
    model = path.stem.partition("-")[0].removesuffix("_swag").removesuffix("_lc")
    values = {"architecture": model, "image_size": size, "mean": MEAN, "std": STD}
    values |= {"interpolation": interpolation} | ({"resize": resize} if resize > size else {})
    return {name: Fact(value, f"torchvision's {path.stem}") for name, value in values.items()}
