"""The images of the benchmark on a pretrained network, in an environment with the extra `real`."""

import numpy as np

from benchmarks.real import data


def test_the_images_are_those_of_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "FOLDER", tmp_path)  # a cache that starts empty
    (cells, labels), pictures = data.solar_cells(), data.photographs()
    assert cells.shape == (2223, 64, 64, 3)
    assert cells.dtype == pictures.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(labels), [588, 313, 920, 402])
    assert pictures.shape[1:] == (64, 64, 3)
    assert [len(part) for part in data.divide(labels, 0, 40).values()] == [160, 160, 160, 1743]
