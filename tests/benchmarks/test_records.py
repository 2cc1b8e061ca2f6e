"""The claims of every benchmark hold on its record, which is complete and of a clean commit."""

import copy
import re

import pytest

from benchmarks.cost import __main__ as cost
from benchmarks.cost import one_backward_pass, training_step
from benchmarks.cost.anchor import __main__ as anchor
from benchmarks.cost.many_devices import __main__ as many_devices
from benchmarks.digits import __main__ as digits
from benchmarks.digits import comparison, head
from benchmarks.digits.renewals import __main__ as renewals
from benchmarks.digits.variants import __main__ as variants
from benchmarks.guarantee import __main__ as guarantee
from benchmarks.guarantee.forms import DIRECTIONS, FORMS
from benchmarks.guarantee.histories import K
from benchmarks.harness import record
from benchmarks.harness.command import RESULTS
from benchmarks.language import __main__ as language
from benchmarks.paper import on_digits
from benchmarks.parity import __main__ as parity
from benchmarks.parity.compare import MODES
from benchmarks.parity.torch_models import LIBRARIES
from benchmarks.peers import __main__ as peers
from benchmarks.peers import work
from benchmarks.real import __main__ as real
from benchmarks.real import layers, report, whole
from optax_dtnh.finetune.settings import METHODS

QUESTIONS = [
    *(cost.QUESTION, training_step.QUESTION, anchor.QUESTION),
    *(many_devices.QUESTION, many_devices.ON_A_TOPOLOGY, digits.QUESTION, head.QUESTION),
    *(variants.QUESTION, comparison.QUESTION, guarantee.QUESTION, on_digits.QUESTION),
    *(parity.QUESTION, peers.QUESTION, real.QUESTION, whole.QUESTION, layers.QUESTION),
    *(language.QUESTION, one_backward_pass.QUESTION, renewals.QUESTION),
]


def of(question):
    return record.read(RESULTS / f"{question.name}.json")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_the_claims_hold_on_the_record_and_the_tables_are_its_own(question):
    results = of(question)
    assert not question.failures or question.failures(results) == []
    environment = results["environment"]
    assert environment["dirty"] is False
    assert re.fullmatch("[0-9a-f]{40}", environment["commit"])
    assert (RESULTS / f"{question.name}.md").read_text() == f"{question.text(results)}\n"


def test_the_guarantee_has_every_cell():
    results = of(guarantee.QUESTION)
    rows = results["rows"]
    cells = {(row["form"], row["optimizer"], row["dtype"], row["range"]) for row in rows}
    ranges = sum(map(len, guarantee.RANGES.values()))
    assert len(rows) == len(cells) == ranges * len(FORMS) * len(DIRECTIONS)
    assert (results["k"], results["draws"] >= 4000) == (K, True)
    for row in rows:
        form = FORMS[row["form"]]
        assert row["exists"] == (row["optimizer"] in form.exists)
        assert not row["exists"] or row["promises"] == (row["optimizer"] in form.promises)
    opposed = {(row["dtype"], row["ratio"]): row["not_descending"] for row in results["opposed"]}
    assert not any(share for (_, ratio), share in opposed.items() if ratio <= 1e5)


def test_every_method_library_and_framework_was_measured_against_the_bars_of_today():
    runs = of(on_digits.QUESTION)["runs"]
    assert {(run["method"], run["seed"]) for run in runs} >= {(m, 2) for m in METHODS}
    results = of(parity.QUESTION)
    assert results["bars"] == {title: mode.bars for title, mode in MODES.items()}
    assert {row["names"] for row in results["rows"]} == LIBRARIES.keys()
    assert {row["model"] for row in results["rows"]} == {case.model for case in parity.CASES}
    results = of(peers.QUESTION)
    assert results["bars"].items() >= work.BARS.items()
    rows = {(row["work"], row["contender"]) for row in results["combination"]}
    assert rows == {(name, by) for name in work.TREES for by in work.FRAMEWORK}
    assert len(results["finetuning"]) == len(work.SINGLE_STEPS) + len(work.TUNINGS)


def test_what_the_experiment_has_not_run_is_counted():
    results = of(whole.QUESTION)
    assert "headline (5 of 26)" in report.missing(results)
    (cell,) = report.headline(results, source="ImageNet", method="plain", regularizer="L2-SP")[:1]
    fewer = [run for run in results["runs"] if run is not cell]
    assert "headline (6 of 26)" in report.missing(results | {"runs": fewer})


def broken(question, **changed):
    """The failures once every row or run of the record has these values."""
    results = copy.deepcopy(of(question))
    rows = results.get("runs") or results["rows"]
    for row in rows:
        row.update(changed)
    return question.failures(results)


def test_a_broken_claim_is_a_failure():
    assert len(broken(parity.QUESTION, logits=float("nan"))) >= len(of(parity.QUESTION)["rows"])
    assert broken(guarantee.QUESTION, worst=float("nan"))
    assert len(broken(on_digits.QUESTION, accuracy=29.9)) == len(of(on_digits.QUESTION)["runs"])
    assert broken(digits.QUESTION, accuracy=[80.0] * 20)
    outside = [row | {"worst": 2.0, "range": "beyond"} for row in of(guarantee.QUESTION)["rows"]]
    assert guarantee.failures({"rows": outside}) == []
