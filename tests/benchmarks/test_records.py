"""The claims of a benchmark hold on its record, and its tables are those of the record."""

import copy

import pytest

from benchmarks.digits import __main__ as digits
from benchmarks.digits import head
from benchmarks.digits.gate import __main__ as gate
from benchmarks.digits.question import against_record
from benchmarks.digits.variants import __main__ as variants
from benchmarks.harness import record
from benchmarks.harness.command import RESULTS

QUESTIONS = [digits.QUESTION, head.QUESTION, variants.QUESTION, gate.QUESTION]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_the_claims_hold_on_the_record_and_the_tables_are_its_own(question):
    results = record.read(RESULTS / f"{question.name}.json")
    assert question.failures(results) == []
    assert (RESULTS / f"{question.name}.md").read_text() == f"{question.text(results)}\n"


@pytest.fixture
def results():
    return copy.deepcopy(record.read(RESULTS / "digits.json"))


def test_a_claim_that_does_not_hold_is_named(results):
    for run in results["runs"]:
        if (run["cell"], run["method"]) == ("rot90", "KnowDist"):
            run["accuracy"] = [100.0] * len(results["seeds"])
    (failure,) = digits.QUESTION.failures(results)
    assert failure.startswith("KnowDist + DTNH, rot90: loses 18.8 ± ")
    assert failure.endswith("expected: gains")


def test_a_run_says_how_far_it_is_from_the_record(results):
    assert against_record("digits", results) == ["Every value is equal to the record's."]
    results["runs"][3]["accuracy"][0] += 4.6
    (sentence,) = against_record("digits", results)
    assert sentence.startswith("The means differ from the record's by at most 0.23 points: another")
    assert against_record("digits", {**results, "seeds": [0]}) == []
