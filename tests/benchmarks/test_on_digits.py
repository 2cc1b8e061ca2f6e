"""Every method of the command on the digits as images: the record, and the table of cells."""

import pytest

from benchmarks.harness import record
from benchmarks.harness.command import RESULTS
from benchmarks.paper import on_digits
from benchmarks.paper.cells import cells, settings
from optax_dtnh.finetune.settings import METHODS


@pytest.fixture(scope="module")
def results():
    return record.read(RESULTS / "paper.on_digits.json")


def test_the_claims_hold_on_the_record_of_every_method(results):
    assert on_digits.failures(results) == []
    assert {(run["method"], run["seed"]) for run in results["runs"]} >= {(m, 2) for m in METHODS}


def test_a_method_or_source_below_the_bar_or_a_failed_run_is_named(results):
    worse = results | {"runs": [run | {"accuracy": 29.9} for run in results["runs"][:1]]}
    (method,) = on_digits.failures(worse)
    assert method == "finetune with seed 0 classifies only 29.9 %."
    assert len(on_digits.failures(results | {"source_accuracy": 94.9})) == 1
    assert len(on_digits.failures(results | {"failed": ["a/b/c/seed0"]})) == 1


@pytest.mark.slow
def test_the_parts_of_the_digits_are_whole_and_disjoint(tmp_path):
    on_digits.write_images(tmp_path)
    files = {part: list((tmp_path / part).glob("*/*.png")) for part in on_digits.PARTS}
    assert {part: len(found) for part, found in files.items()} == on_digits.PARTS
    names = [file.name for found in files.values() for file in found]
    assert len(names) == len(set(names)) == 1797
    assert all(len(list((tmp_path / part).iterdir())) == 10 for part in files)


@pytest.mark.slow
def test_every_method_is_run_with_arguments_that_the_command_takes():
    made = [settings(cell, on_digits.TABLE.arguments) for cell in cells(on_digits.TABLE)]
    assert {x.method for x in made} == set(METHODS)
