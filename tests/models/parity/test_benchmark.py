"""The benchmark `benchmarks.parity`: its record, its verdict, and real checkpoints as source."""

import functools
import sys

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.harness import record
from benchmarks.parity import __main__ as parity
from benchmarks.parity.compare import seeded_pair
from benchmarks.parity.torch_models import LIBRARIES
from optax_dtnh.models import ViT


def test_every_library_has_a_case():
    assert {case.library for case in parity.CASES} == LIBRARIES.keys()


@pytest.fixture
def vit():
    """A small network of transformers."""
    build = functools.partial(ViT, 128, blocks=2, image_size=48)
    return seeded_pair(LIBRARIES["Hugging Face ViT"], build).reference.net


def test_a_file_is_compared_and_recorded(vit, tmp_path, capsys):
    vit.save_pretrained(tmp_path)
    source, out = tmp_path / "model.safetensors", tmp_path / "out"
    assert parity.main(["--source", str(source), "--out", str(out)]) == 0
    assert "All differences are within their bars." in capsys.readouterr().out
    (row,) = record.read(out / "parity.json")["rows"]
    assert (row["model"], row["names"]) == ("model.safetensors", "Hugging Face ViT")
    assert (out / "parity.md").read_text().startswith(parity.table([row]))
    assert str(tmp_path) not in (out / "parity.json").read_text()


def test_what_the_configuration_beside_a_file_asks_for_counts(vit, tmp_path, capsys):
    vit.config.hidden_act = "gelu_new"  # the tanh form
    vit.save_pretrained(tmp_path)
    source = str(tmp_path / "model.safetensors")
    assert parity.main(["--source", source, "--out", str(tmp_path / "out")]) == 1
    assert "Not within its bar of 1e-05: model.safetensors" in capsys.readouterr().out


def test_a_file_of_torch_is_compared_without_its_configuration(vit, tmp_path):
    vit.save_pretrained(tmp_path / "saved")
    torch.save(load_file(tmp_path / "saved/model.safetensors"), tmp_path / "model.pth")
    source = str(tmp_path / "model.pth")
    assert parity.main(["--source", source, "--out", str(tmp_path / "out")]) == 0


def test_a_repository_is_taken_from_the_cache(vit, tmp_path, monkeypatch):
    folder = tmp_path / "models--owner--name"
    vit.save_pretrained(folder / "snapshots/0123456")
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("0123456")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (row,) = parity.of_source("hf:owner/name", download=False)
    assert row["model"] == "hf:owner/name"
    assert parity.missed([row]) == []


@pytest.mark.parametrize("name", ["torch", "torchvision", "timm", "transformers"])
def test_a_missing_package_is_named_in_one_line(name, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as refusal:
        parity.main([])
    assert refusal.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"`{name}` should be importable" in said


def test_a_file_that_does_not_exist_is_named_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as refusal:
        parity.main(["--source", str(tmp_path / "none.safetensors")])
    assert refusal.value.code == 2
    assert "none.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("difference", [2e-5, float("inf"), float("nan")])
def test_a_difference_above_its_bar_is_missed(difference):
    row = {"model": "A", "names": "B", "mode": "eval, float32"}
    row |= {"logits": difference, "features": 1e-6, "gradients": 1e-6, "statistics": None}
    (line,) = parity.missed([row])
    assert line.startswith("Not within its bar of 1e-05: A, B, eval, float32: logits differ by")
