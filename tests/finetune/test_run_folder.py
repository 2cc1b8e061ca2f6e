"""Whose the folder of a run is while it runs."""

import subprocess
import sys

import pytest

from optax_dtnh.finetune import identity
from tests.finetune.runs import ROOT

HOLD = """
import pathlib, sys, time
from optax_dtnh.finetune import identity
with identity.alone(pathlib.Path(sys.argv[1])):
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_of_one_process_until_that_ends(tmp_path):
    with identity.alone(tmp_path):
        with (
            pytest.raises(ValueError, match="`--out` should be a folder that no other process"),
            identity.alone(tmp_path),
        ):
            pass
    with identity.alone(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_killed_process_no_longer_has_the_folder(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"begun\n"
        with pytest.raises(ValueError, match="no other process"), identity.alone(tmp_path):
            pass
        process.kill()
        process.wait()
    with identity.alone(tmp_path):
        pass
