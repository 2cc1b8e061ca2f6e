"""The committed golden outputs are what torch gives, and the sample checkpoints have its names."""

import pytest

from benchmarks.parity.compare import worst
from benchmarks.parity.outputs import tensors_of
from benchmarks.parity.torch_models import library_of
from optax_dtnh.models._names import SCHEMES
from tests.models import goldens
from tests.models.checkpoints import SAMPLES
from tests.models.parity.write_goldens import torch_outputs


@pytest.mark.parametrize("name", goldens.NAMES)
def test_writing_a_golden_output_again_gives_the_committed_one(name, tmp_path):
    goldens.write(name, goldens.golden(torch_outputs(name), name), tmp_path)
    again, committed = goldens.read(name, tmp_path), goldens.read(name)
    assert again.keys() == committed.keys()
    for kind in committed:
        assert worst(again[kind], committed[kind]) <= 1e-8, kind


@pytest.mark.parametrize("name", SAMPLES)
def test_the_sample_has_the_names_and_shapes_of_torchs_network(name, tmp_path):
    (scheme,) = (scheme for scheme in SCHEMES if scheme.known_by in SAMPLES[name])
    model = goldens.load_sample(name, tmp_path)
    tensors = tensors_of(library_of(scheme).build(model))
    assert {path: tensor.shape for path, tensor in tensors.items()} == SAMPLES[name]


def test_no_golden_output_is_left_of_a_sample_that_is_gone():
    written = {path.stem for path in goldens.FOLDER.glob("*.json")}
    assert written == set(goldens.NAMES)
