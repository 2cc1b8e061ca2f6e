"""What tests of the command share: digits in folders, a small source network, a finished run."""

import os
import shutil

import jax
import pytest

from tests.finetune.runs import SMALL, run, write_digits, write_source


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def arguments(digits, tmp_path_factory):
    source = write_source(tmp_path_factory.mktemp("source") / "resnet.safetensors")
    return ["--source", str(source), "--data", str(digits), *SMALL]


@pytest.fixture(scope="session")
def trained(arguments, tmp_path_factory):
    """The folder of a run under a umask of its own, and what the run has printed."""
    out, umask = tmp_path_factory.mktemp("runs") / "run", os.umask(0o027)
    # As `quickly_compiled`, which every module has that uses it, and which comes only afterwards.
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        return out, run(*arguments, out=out)
    finally:
        os.umask(umask)


@pytest.fixture
def out(trained, tmp_path):
    """A copy of its folder."""
    return shutil.copytree(trained[0], tmp_path / "run")
