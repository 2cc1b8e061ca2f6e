"""Files of weights: read exactly, or refused in one sentence that names the file."""

import hashlib
import json
import os
import re
import struct
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from optax_dtnh.models import CheckpointError
from optax_dtnh.models._checkpoint import open_checkpoint

DTYPES = ["float64", "float32", "float16", "bfloat16", "complex64", "bool", "int64", "uint8"]
ARRAYS = {
    "fc.weight": np.arange(6, dtype="float32").reshape(2, 3),
    "fc.bias": np.array([0.1, -3e38], "float32"),
    "bn.num_batches_tracked": np.array(7, "int64"),
    "empty": np.zeros((0, 3), "float32"),
    **{name: np.asarray(jnp.array([0, 1, 1])).astype(name) for name in DTYPES},
}
LFS_POINTER = b"version https://git-lfs\noid sha256:4d7a2146\nsize 46830571\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model-00001-of-00001.safetensors"  # all of one part
    save_file(ARRAYS, path, {"format": "pt"})
    return path


def raw(header, data=b""):
    """Return a safetensors file, sound or not, from its header and its data."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def refused(path, **options):
    """Return the one error that opening or reading the file ends in; it names the file."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as raised:
        open_checkpoint(path, **options)
    assert type(raised.value) is CheckpointError
    form = r"(`(source|sha256)` should .+, got|torch is not) .+\. .+\."
    assert re.fullmatch(form, str(raised.value))
    ours = str(raised.value).startswith("torch is not")  # torch's own text: set it to False
    assert ("weights_only" in str(raised.value)) == ours
    return raised.value


def test_arrays_and_metadata_are_read_bit_for_bit(path):
    file = open_checkpoint(path)
    assert (file.path, file.metadata) == (path, {"format": "pt"})
    assert file.tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert file.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(file.tensors[name], array)
    save_file(ARRAYS, path)
    capitals = path.rename(path.with_suffix(".SAFETENSORS"))
    assert open_checkpoint(str(capitals)).metadata == {}


@pytest.mark.parametrize("name", ["no/file.safetensors", "owner/name", "owner/name.with_a_dot"])
def test_a_missing_file_is_named_and_that_of_a_repository_answered_with_the_form(name):
    then = r"\." if name.endswith(".safetensors") else r"\. .* as in `hf:owner/name`\."
    message = f"`source` should be an existing file, got {name}{then}"
    with pytest.raises(FileNotFoundError, match=message):
        open_checkpoint(name)


def fill(path):
    path.write_bytes(raw({}))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("model.msgpack", fill),
        ("model", fill),
        ("folder.pt", Path.mkdir),
        ("pipe.pth", os.mkfifo),  # it is never opened
    ],
)
def test_the_name_of_something_else_is_answered_with_what_is_read(name, make, tmp_path):
    make(tmp_path / name)
    message = "`source` should be a file that ends in .safetensors, .pth, .pt, .bin, got"
    assert message in str(refused(tmp_path / name))


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FLOAT8 = {"dtype": "F8_E5M2", "shape": [8], "data_offsets": [0, 8]}
DAMAGE = {
    "empty": lambda sound: b"",
    "an HTML page": lambda sound: b"<!DOCTYPE html>\n<html><body>Not found</body></html>",
    "a git-LFS pointer": lambda sound: LFS_POINTER,
    "truncated data": lambda sound: sound[:-1],
    "truncated header": lambda sound: sound[:40],
    "trailing bytes": lambda sound: sound + b"\0",
    "garbage": lambda sound: bytes(np.random.default_rng(0).integers(0, 256, 500, "uint8")),
    "an unknown dtype": lambda sound: raw({"x": ENTRY | {"dtype": "F7"}}, b"\0" * 8),
    "one that numpy lacks": lambda sound: raw({"x": FLOAT8}, b"\0" * 8),
    "a shape that is not its bytes'": lambda sound: raw({"x": ENTRY | {"shape": [3]}}, b"\0" * 8),
    "a zip archive": lambda sound: b"PK\3\4" + sound,
}
CAUSES = {
    "an HTML page": "is an HTML page. Fetch the file itself.",
    "a git-LFS pointer": "is a pointer of git LFS. Run `git lfs pull`.",
    "one that numpy lacks": "holds something else. Save `model.state_dict()`, in float32.",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_one_error_that_is_chained(damage, path):
    sound = path.read_bytes()
    path.write_bytes(DAMAGE[damage](sound))
    error = refused(path)
    assert f", which {CAUSES.get(damage, 'is cut off or damaged (SafetensorError: ')}" in str(error)
    assert isinstance(error.__cause__, SafetensorError | AttributeError)
    path.write_bytes(sound)
    assert open_checkpoint(path).tensors.keys() == ARRAYS.keys()


def test_a_flipped_bit_is_found_by_the_digest_alone_in_either_case(path):
    sound = path.read_bytes()
    digest = hashlib.sha256(sound).hexdigest()
    for sha256 in (digest, digest.upper()):
        assert open_checkpoint(path, sha256).tensors.keys() == ARRAYS.keys()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert open_checkpoint(path).tensors.keys() == ARRAYS.keys()
    text = str(refused(path, sha256=digest))
    path.write_bytes(b"garbage")  # compared before anything is parsed
    assert str(refused(path, sha256=digest)).startswith("`sha256` should be the digest of")
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert f"which is {hashlib.sha256(path.read_bytes()).hexdigest()}, got '{digest}'." in text


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_without_torch_its_files_are_to_be_converted(suffix, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = (tmp_path / "model").with_suffix(suffix)
    path.write_bytes(b"PK\3\4 and so on")
    error = refused(path)
    assert str(error).startswith(f"torch is not installed, so {path} cannot be read.")
    assert "safetensors.torch.save_file({k: v.contiguous().clone() for k, v in" in str(error)
    assert isinstance(error.__cause__, ImportError)
