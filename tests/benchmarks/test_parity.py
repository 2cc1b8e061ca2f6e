"""The comparison with torch's networks: its record. What needs torch is in tests/models/parity."""

import pytest

from benchmarks.harness import record
from benchmarks.harness.command import RESULTS
from benchmarks.parity import __main__ as parity
from benchmarks.parity.compare import MODES
from benchmarks.parity.torch_models import LIBRARIES


@pytest.fixture(scope="module")
def results():
    return record.read(RESULTS / "parity.json")


def test_the_claims_hold_on_the_record(results):
    assert results["bars"] == {title: mode.bars for title, mode in MODES.items()}
    assert parity.failures(results) == []
    assert {row["names"] for row in results["rows"]} == LIBRARIES.keys()
    assert {row["model"] for row in results["rows"]} == {case.model for case in parity.CASES}


@pytest.mark.parametrize("difference", [2e-5, float("inf"), float("nan")])
def test_a_difference_above_its_bar_is_a_failure(results, difference):
    row = results["rows"][0] | {"logits": difference}
    (line,) = parity.failures(results | {"rows": [row]})
    assert "logits differ by" in line
