"""The target, solar cells, and the photographs on which forgetting is measured.

Both come with packages and are read from there: nothing of them is in this repository.
"""

from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.real.cache import cached

CLASSES = ("mono, functional", "mono, defective", "poly, functional", "poly, defective")
VALIDATION = 40  # images of each class


class Images(NamedTuple):
    """Labelled images."""

    pixels: np.ndarray  # uint8, shape `[n, size, size, 3]`
    labels: np.ndarray  # int32, shape `[n]`


class Split(NamedTuple):
    """Indices of images, no index in two of them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def solar_cells(size: int = 64) -> Images:
    """Return the 2,223 solar cells that are surely functional or surely defective.

    Electroluminescence images of monocrystalline and polycrystalline cells, gray, with one value in
    all three channels. The labels count `CLASSES`.

    Source: Deitsch et al., [Segmentation of photovoltaic module cells in uncalibrated
    electroluminescence images](https://arxiv.org/abs/1806.06530), 2021, and the package
    `elpv-dataset`, CC BY-NC-SA 4.0.
    """
    with np.load(cached(f"solar-cells-{size}.npz", partial(_write_solar_cells, size))) as file:
        return Images(np.repeat(file["gray"][..., None], 3, axis=-1), file["labels"])


def split(seed: int, shots: int) -> Split:
    """Return a seed's division of the solar cells, see `divide`."""
    return divide(_labels(), seed, shots)


def divide(labels: np.ndarray, seed: int, shots: int) -> Split:
    """Draw `shots` images of each class to train on, 40 to choose by, and the rest to test.

    The validation does not depend on `shots`, and a smaller training set is part of a larger one.
    Training and validation have as many images of each class, the test as many as are left.

    Raises:
      ValueError: `shots` is not positive, or leaves a class without an image to test.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    classes = [order[labels[order] == c] for c in np.unique(labels)]
    most = min(map(len, classes)) - VALIDATION - 1
    if not 1 <= shots <= most:
        raise ValueError(
            f"`shots` should be from 1 to {most}, got {shots}. Each class needs {VALIDATION} "
            "images for the validation and one for the test."
        )
    ends = (VALIDATION, VALIDATION + shots)
    parts = [
        np.concatenate(part) for part in zip(*(np.split(c, ends) for c in classes), strict=True)
    ]
    return Split(parts[1], parts[0], parts[2])


def photographs(size: int = 64) -> np.ndarray:
    """Return square crops of seven photographs, uint8 `[n, size, size, 3]`, in no class of ours.

    From scikit-image an astronaut and a rocket (public domain), a cat and a coffee (CC0); from
    matplotlib Grace Hopper (public domain); from scikit-learn a temple and a flower (CC BY 2.0).
    Crops of one photograph overlap: they are no independent sample.
    """
    with np.load(cached(f"photographs-{size}.npz", partial(_write_photographs, size))) as file:
        return file["pixels"]


@cache
def _labels() -> np.ndarray:
    return solar_cells().labels


def _write_solar_cells(size: int, path: Path) -> None:
    from elpv_dataset.utils import load_dataset  # pyright: ignore[reportMissingImports]

    images, defective, kinds = load_dataset()
    sure = (defective == 0) | (defective == 1)
    labels = 2 * (kinds == "poly") + defective
    gray = np.stack([_resized(image, size) for image in images[sure]])
    _write(path, gray=gray, labels=labels[sure].astype(np.int32))


def _write_photographs(size: int, path: Path) -> None:
    import matplotlib
    from PIL import Image
    from skimage import data  # pyright: ignore[reportMissingImports]
    from sklearn.datasets import load_sample_images

    pictures = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    pictures += load_sample_images().images
    hopper = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    pictures.append(np.asarray(Image.open(hopper)))
    _write(path, pixels=np.stack([_resized(c, size) for p in pictures for c in crops(p)]))


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


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def _write(path: Path, **arrays: np.ndarray) -> None:
    with path.open("wb") as file:  # by name, NumPy would add .npz to it
        np.savez_compressed(file, allow_pickle=False, **arrays)
