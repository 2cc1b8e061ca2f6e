"""The target, solar cells, and the photographs on which forgetting is measured.

Both come with packages and are read from there: nothing of them is in this repository.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.real.cache import cached

CLASSES = ("mono, functional", "mono, defective", "poly, functional", "poly, defective")


def solar_cells(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2,223 solar cells that are surely functional or surely defective, and labels.

    Electroluminescence images of monocrystalline and polycrystalline cells, gray, with one value in
    all three channels: uint8 `[n, size, size, 3]`. The labels count `CLASSES`.

    Source: Deitsch et al., [Segmentation of photovoltaic module cells in uncalibrated
    electroluminescence images](https://arxiv.org/abs/1806.06530), 2021, and the package
    `elpv-dataset`, CC BY-NC-SA 4.0.
    """
    with np.load(cached(f"solar-cells-{size}.npz", partial(_write_solar_cells, size))) as file:
        return np.repeat(file["gray"][..., None], 3, axis=-1), file["labels"]


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


def photographs(size: int = 64) -> np.ndarray:
    """Return square crops of seven photographs, uint8 `[n, size, size, 3]`, in no class of ours.

    From scikit-image an astronaut and a rocket (public domain), a cat and a coffee (CC0); from
    matplotlib Grace Hopper (public domain); from scikit-learn a temple and a flower (CC BY 2.0).
    Crops of one photograph overlap: they are no independent sample.
    """
    with np.load(cached(f"photographs-{size}.npz", partial(_write_photographs, size))) as file:
        return file["pixels"]


def _write_solar_cells(size: int, path: Path) -> None:
    from elpv_dataset.utils import load_dataset  # pyright: ignore[reportMissingImports]

    images, defective, kinds = load_dataset()
    sure = (defective == 0) | (defective == 1)
    labels = 2 * (kinds == "poly") + defective
    gray = np.stack([resized(image, size) for image in images[sure]])
    np.savez_compressed(path, gray=gray, labels=labels[sure].astype(np.int32))


def _write_photographs(size: int, path: Path) -> None:
    import matplotlib
    from PIL import Image
    from skimage import data  # pyright: ignore[reportMissingImports]
    from sklearn.datasets import load_sample_images

    pictures = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    pictures += load_sample_images().images
    hopper = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    pictures.append(np.asarray(Image.open(hopper)))
    np.savez_compressed(
        path, pixels=np.stack([resized(c, size) for p in pictures for c in crops(p)])
    )


def crops(picture: np.ndarray) -> list[np.ndarray]:
    """Return the squares as high as the picture, half and a third as high, overlapping by half."""
    height, width = picture.shape[:2]
    found = []
    for parts in (1, 2, 3):
        side = min(height, width) // parts
        tops = range(0, height - side + 1, side // 2)
        lefts = range(0, width - side + 1, side // 2)
        found += [picture[i : i + side, j : j + side] for i in tops for j in lefts]
    return found


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Return the image in another size."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
