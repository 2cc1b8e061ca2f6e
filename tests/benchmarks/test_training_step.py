"""The cost of a whole training step: on a narrow network, and what the record says."""

import functools
import json
import re

import jax
import pytest

from benchmarks.cost import training_step
from benchmarks.cost.compiled import NOT_RUN
from benchmarks.cost.tables import Table
from benchmarks.cost.training import Bill, abstract_of, bill_of, compiled, steps_of
from benchmarks.cost.training_step import BARS, LAST, STAGES, WITHOUT, missed, runs_of, stage_ratio
from optax_dtnh.models import resnet18
from tests.pages.pages import ROOT

narrow = functools.partial(resnet18, width=8)


@functools.cache
def programs():
    model = abstract_of(narrow)
    steps = steps_of(model, training_step.BATCH, training_step.IMAGE, LAST)
    return steps, {name: compiled(step, model, NOT_RUN) for name, step in steps.items()}


@functools.cache
def bills():
    return {name: bill_of(program) for name, program in programs()[1].items()}


def test_a_step_of_l2_sp_costs_no_flops_and_no_memory_more():
    assert not missed("L2-SP + DTNH", bills())
    assert bills()["L2-SP"].flops > bills()["fine-tuning"].flops  # there is a regularizer


def test_a_step_with_the_teacher_in_it_costs_half_as_much_again():
    ratio = bills()["KnowDist + DTNH"].flops / bills()["KnowDist"].flops
    assert 1.4 < ratio <= BARS["KnowDist + DTNH"]["flops"]


def test_a_step_is_cheaper_the_earlier_the_map_is():
    early, late = stage_ratio(narrow, ("stage2",)), stage_ratio(narrow, LAST)
    assert 1.2 < early < late - 0.1
    assert late <= STAGES[LAST]


def test_what_is_updated_is_counted_once_in_the_peak():
    memory = programs()[1]["L2-SP"].memory_analysis()
    kept = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    assert bills()["L2-SP"].peak < kept + 0.01 * memory.output_size_in_bytes


def test_every_step_runs_and_goes_on_from_its_own_result():
    runs = runs_of(narrow, *programs())
    assert runs.keys() == bills().keys()
    assert all(run() > 0 < run() for run in runs.values())


def test_a_missed_bar_names_the_method_the_quantity_and_the_bar(monkeypatch):
    monkeypatch.setattr(training_step, "storage_is_known", lambda: True)
    found = {"L2-SP": Bill(1.0, 1.0, 0.0), "L2-SP + DTNH": Bill(1.02, float("nan"), 0.0)}
    assert missed("L2-SP + DTNH", found) == [
        "L2-SP + DTNH: flops 1.0200, at most 1.01",
        "L2-SP + DTNH: peak nan, at most 1.01",
    ]
    monkeypatch.setattr(training_step, "storage_is_known", lambda: False)
    assert len(missed("L2-SP + DTNH", found)) == 1


def test_a_stage_above_its_bar_is_named(monkeypatch):
    monkeypatch.setattr(training_step, "stage_ratio", lambda make, maps: 1.5)
    table = training_step.stages_table(narrow, {("stage3",): 1.55, ("stage2",): 1.32})
    assert table.failures == ["stage2: flops 1.5000, at most 1.32"]


def test_the_exit_code_tells_of_a_missed_bar(monkeypatch, capsys, tmp_path):
    path = tmp_path / "out" / "step.json"
    for failures in ([], ["stage2: z"]):
        table = Table("title", [{"map": "stage2", "ratio": 1.5, "time": None}], failures)
        monkeypatch.setattr(training_step, "methods_table", lambda make, wall, table=table: table)
        monkeypatch.setattr(training_step, "stages_table", lambda make: Table("b", [{"x": 1}], []))
        assert training_step.main(["--out", str(path)]) == len(failures)
        assert json.loads(path.read_text())["tables"][0]["failures"] == failures
    assert capsys.readouterr().out.endswith("Bars missed:\nstage2: z\n")
    assert "| stage2 | 1.5 | – |" in path.with_suffix(".md").read_text()


@pytest.fixture(scope="module")
def record():
    """The committed record."""
    return json.loads((ROOT / "benchmarks" / "results" / "cost.training_step.json").read_text())


def test_the_committed_record_is_of_these_bars_and_of_a_commit_without_changes(record):
    methods, stages = record["tables"]
    ratios = {row["method"]: row for row in methods["rows"]}
    assert ratios.keys() == bills().keys()
    for name in WITHOUT:
        assert ratios[name]["flops ratio"] <= BARS[name]["flops"]
        assert ratios[name]["peak ratio"] <= BARS[name]["peak"]
        if "time ratio" in ratios[name]:  # recorded with --wall
            assert ratios[name]["low"] <= ratios[name]["time ratio"] <= ratios[name]["high"]
    assert {row["map"]: row["at most"] for row in stages["rows"]} == {
        maps[-1]: bar for maps, bar in STAGES.items()
    }
    assert methods["failures"] == stages["failures"] == []
    assert record["environment"]["dirty"] is False
    assert re.fullmatch("[0-9a-f]{40}", record["environment"]["commit"])


def test_the_tables_beside_the_record_are_of_it(record):
    tables = [Table(**table) for table in record["tables"]]
    page = ROOT / "benchmarks" / "results" / "cost.training_step.md"
    assert page.read_text() == training_step.markdown(tables)


def test_a_step_of_ones_has_the_figures_of_xla():
    program = jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((8, 8), "float32")).compile()
    assert bill_of(program) == Bill(flops=2 * 8**3, peak=2 * 8 * 8 * 4, temporary=0)
