"""Files of torch: tensors as stored in either format, and nothing of a file is ever executed."""

import collections
import os
import re

import numpy as np
import pytest
import torch

from optax_dtnh.models._checkpoint import open_checkpoint
from tests.models.test_checkpoint_files import DTYPES, refused

formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def saved(content, tmp_path, zipped=True, name="model.pth"):
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    return tmp_path / name


def network():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


def tensors():
    """Those of a network, of every dtype, and views."""
    whole = torch.arange(12.0).reshape(3, 4)
    views = {"T": whole.T, "step": whole[::2, 1:], "one": whole[0, 1], "narrow": whole.bfloat16().T}
    views |= {"same": whole[:1].expand(5, 4), "parameter": torch.nn.Parameter(whole)}
    dtypes = {d: torch.tensor([0.0, 1.0, 3.140625]).to(getattr(torch, d)) for d in DTYPES}
    return network().state_dict() | views | dtypes


@formats
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_tensors_are_read_as_what_they_show_in_their_dtype(zipped, suffix, tmp_path):
    content = tensors()
    file = open_checkpoint(saved(content, tmp_path, zipped, "model" + suffix))
    assert file.metadata == {}
    assert list(file.tensors) == list(content)
    for name, tensor in content.items():
        assert file.tensors[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        wide = torch.complex128 if tensor.is_complex() else torch.float64
        values = file.tensors[name].astype(str(wide).removeprefix("torch."))
        np.testing.assert_array_equal(values, tensor.detach().to(wide).numpy())


@formats
@pytest.mark.parametrize(
    "keys", [["model_state_dict"], ["state_dict", "model"], ["model", "state_dict"]]
)
def test_a_training_checkpoint_is_unwrapped(zipped, keys, tmp_path):
    content = weights = network().state_dict()
    for key in reversed(keys):
        content = {"epoch": 3, key: content, "optimizer": {"lr": 0.1}}
    assert open_checkpoint(saved(content, tmp_path, zipped)).tensors.keys() == weights.keys()


def test_a_tensor_named_model_is_no_wrapping(tmp_path):
    content = {"model": torch.ones(2), "state_dict": torch.ones(3)}
    assert open_checkpoint(saved(content, tmp_path)).tensors.keys() == content.keys()


OTHER = {
    "a list": [torch.ones(2)],
    "a tensor": torch.ones(2),
    "a number": {"x": torch.ones(2), "epoch": 3},
    "a tree": {"state_dict": {"x": {"y": torch.ones(2)}}},
    "a sparse tensor": {"x": torch.ones(2).to_sparse()},
    "no data": {"x": torch.ones(2, device="meta")},
    "a dtype that numpy lacks": {"x": torch.ones(2).to(torch.float8_e5m2)},
}


@formats
@pytest.mark.parametrize("other", OTHER)
def test_other_than_a_flat_mapping_to_dense_tensors_is_refused(zipped, other, tmp_path):
    error = str(refused(saved(OTHER[other], tmp_path, zipped)))
    assert "should map names to dense tensors of dtypes that numpy has, got" in error
    assert error.endswith("which holds something else. Save `model.state_dict()`, in float32.")


@pytest.mark.filterwarnings("ignore")  # torch's, of its own format
def test_an_archive_of_torchscript_is_not_said_to_be_damaged(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "m.pt")
    assert "which holds Python objects, which could run code" in str(refused(tmp_path / "m.pt"))


class Payload:
    """Runs a command where the file is unpickled."""

    def __init__(self, evidence):
        self.evidence = evidence

    def __reduce__(self):
        return os.mkdir, (str(self.evidence),)


@formats
def test_a_malicious_file_executes_nothing_and_is_refused(zipped, tmp_path):
    evidence = tmp_path / "executed"
    path = saved({"x": torch.ones(2), "y": Payload(evidence)}, tmp_path, zipped)
    assert "which holds Python objects, which could run code. Save" in str(refused(path))
    assert not evidence.exists()
    torch.load(path, weights_only=False)  # the negative control: the payload does work
    assert evidence.exists()


@formats
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_error_that_is_chained(zipped, keep, tmp_path):
    weights = collections.OrderedDict(x=torch.ones(500), y=torch.ones(500))
    path = saved(weights, tmp_path, zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    error = refused(path)
    assert re.search(r", which is cut off or damaged \(\w+\)\. Fetch it again\.$", str(error))
    assert error.__cause__ is not None
    path.write_bytes(whole)
    assert open_checkpoint(path).tensors.keys() == weights.keys()
