"""The committed golden outputs, and the names and shapes of their tensors, are torch's."""

import pytest

from benchmarks.parity.compare import worst
from tests.models import goldens
from tests.models.parity.write_goldens import NETWORKS, golden


@pytest.mark.parametrize("name", NETWORKS)
def test_writing_a_golden_output_again_gives_the_committed_one(name):
    again, committed = golden(name), goldens.read(name)
    assert again.keys() == committed.keys()
    assert again.pop("tensors") == committed.pop("tensors")
    for mode, kinds in committed.items():
        for kind in kinds:
            assert worst(again[mode][kind], kinds[kind]) <= 1e-8, kind


def test_no_golden_output_is_left_of_a_network_that_is_gone():
    assert {*goldens.NAMES} == NETWORKS.keys()
