"""What runs of the command are given, made once: digits in folders, and a small source network."""

import pytest

from tests.finetune.runs import SMALL, write_digits, write_source


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def arguments(digits, tmp_path_factory):
    source = write_source(tmp_path_factory.mktemp("source") / "resnet.safetensors")
    return ["--source", str(source), "--data", str(digits), *SMALL]
