"""The benchmark `benchmarks.parity`: its verdict, and real checkpoints as a source."""

import functools

import pytest

from benchmarks.harness import record
from benchmarks.harness.command import command
from benchmarks.parity import __main__ as parity
from benchmarks.parity.compare import seeded_pair
from benchmarks.parity.torch_models import LIBRARIES
from optax_dtnh.models import ViT


@pytest.fixture
def vit():
    """A small network of transformers."""
    build = functools.partial(ViT, 192, blocks=2, image_size=48)
    return seeded_pair(LIBRARIES["Hugging Face ViT"], build).reference.net


def compared(source, out):
    """The exit code and the only row of the record."""
    code = command(parity.QUESTION, ["--source", str(source), "--out", str(out)])
    (row,) = record.read(out / "parity.json")["rows"]
    return code, (row["model"], row["names"])


def test_a_file_is_compared_as_the_configuration_beside_it_asks_for(vit, tmp_path):
    vit.config.hidden_act, vit.config.layer_norm_eps = "quick_gelu", 1e-3
    vit.config.num_attention_heads = 6
    vit.save_pretrained(tmp_path)
    found = compared(tmp_path / "model.safetensors", tmp_path / "out")
    assert found == (0, ("model.safetensors", "Hugging Face ViT"))
    assert str(tmp_path) not in (tmp_path / "out/parity.json").read_text()


def test_a_file_without_a_head_is_refused(vit, tmp_path, capsys):
    vit.vit.save_pretrained(tmp_path)
    with pytest.raises(SystemExit):
        compared(tmp_path / "model.safetensors", tmp_path / "out")
    assert "`--source` should hold a ResNet or ViT with a head, got" in capsys.readouterr().err
