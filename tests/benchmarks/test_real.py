"""The pretrained network's convolutions, and the division of the solar cells."""

import numpy as np
import pytest

from benchmarks.real import data
from benchmarks.real.efficientnet import convolution, normalized
from tests.models import test_efficientnet as lite0

draw = lite0.draw


@pytest.mark.slow
@pytest.mark.parametrize(("side", "size", "stride"), lite0.CASES)
def test_convolutions_and_their_derivatives_are_those_of_xla(side, size, stride, draw):
    lite0.assert_as_xla(convolution, draw(2, side, side + 1, 4), draw(size, size, 4, 3), stride)


def test_the_factors_in_the_kernel_normalize_the_channels(draw):
    x, params = draw(2, 4, 4, 3), {"kernel": draw(1, 1, 3, 5), "scale": draw(5), "bias": draw(5)}
    fixed = {"mean": draw(5), "var": draw(5) ** 2}
    kernel, scale, bias, mean, var = map(np.asarray, (params | fixed).values())
    expected = (np.asarray(x) @ kernel[0, 0] - mean) / np.sqrt(var + 1e-3) * scale + bias
    np.testing.assert_allclose(normalized(convolution, x, params, fixed), expected, rtol=1e-9)


# --- the images


def test_parts_are_disjoint_balanced_and_of_the_seed():
    labels = np.repeat(np.arange(3), (130, 150, 125))
    parts = data.divide(labels, seed=0, shots=10)
    everything = np.concatenate(list(parts.values()))
    assert len(set(everything)) == len(everything) == 3 * (10 + 40 + 40) + 10 + 30 + 5
    sizes = {"train": [10] * 3, "validation": [40] * 3, "spoil": [40] * 3, "test": [10, 30, 5]}
    for name, expected in sizes.items():
        np.testing.assert_array_equal(np.bincount(labels[parts[name]]), expected)
    few, other = data.divide(labels, 0, 5), data.divide(labels, 1, 10)
    assert set(few["train"]) < set(parts["train"])
    assert set(few["test"]) == set(parts["test"]) != set(other["test"])


def test_what_is_missing_is_said_with_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "FOLDER", tmp_path / "real")

    def write(path):
        import no_such_package  # noqa: F401

    with pytest.raises(ModuleNotFoundError, match=r"`no_such_package` is not .*'.\[real\]'"):
        data.cached("a.npz", write)
    path = data.cached("a.txt", lambda path: path.write_text("made"))
    assert data.cached("a.txt", write) == path
    assert path.read_text() == "made"
