"""The cost of a gradient pair on a ResNet-18: the bars, and what the record and the page say."""

import functools
import json
import re

import pytest

from benchmarks.cost import knowdist as knowdist_cost
from benchmarks.cost.knowdist import BARS, count, missed, ratios
from benchmarks.cost.tables import Table
from tests.pages.pages import ROOT

RECORD = json.loads((ROOT / "benchmarks" / "results" / "cost.knowdist.json").read_text())


@functools.cache
def narrow(maps):
    return ratios(count(maps, width=16))


@pytest.mark.parametrize("maps", [("stage4",), ("stage2",)], ids=lambda maps: maps[0])
def test_a_pair_stays_within_its_bar_and_the_control_does_not_where_the_map_is_early(maps):
    assert not missed(maps[0], narrow(maps), BARS[maps], late=maps == ("stage4",))


def test_a_teacher_ends_at_the_last_map_that_the_regularizer_sees():
    early, late = narrow(("stage2",))["teacher"], narrow(("stage4",))["teacher"]
    assert 0.2 < early < 0.8 * late
    assert late < 0.4


def test_a_missed_bar_and_a_control_that_misses_none_are_named():
    row = {"pair": 1.5, "zero array": 1.4}
    assert missed("stage2", row, 1.41, late=False) == [
        "stage2: flops 1.500, at most 1.41",
        "stage2: the control, flops 1.400, misses no bar",
    ]
    assert missed("stage4", row, 1.67, late=True) == []


def test_the_exit_code_tells_of_a_missed_bar(monkeypatch, capsys, tmp_path):
    for failures in ([], ["stage2: z"]):
        table = Table("title", [{"maps": "stage2", "pair": 1.5}], failures)
        monkeypatch.setattr(knowdist_cost, "measure", lambda bars, table=table: table)
        path = tmp_path / "out" / "cost.json"
        assert knowdist_cost.main(["--out", str(path)]) == len(failures)
        assert json.loads(path.read_text())["tables"][0]["failures"] == failures
    assert capsys.readouterr().out.endswith("Bars missed:\nstage2: z\n")


def test_the_committed_record_is_of_these_bars_and_of_a_commit_without_changes():
    (table,) = RECORD["tables"]
    assert {row["maps"]: row["at most"] for row in table["rows"]} == {
        " and ".join(maps): bar for maps, bar in BARS.items()
    }
    assert table["failures"] == []
    assert RECORD["environment"]["dirty"] is False
    assert re.fullmatch("[0-9a-f]{40}", RECORD["environment"]["commit"])


def test_the_figures_on_the_page_are_those_of_the_record():
    text = " ".join((ROOT / "docs" / "models.md").read_text().split())
    found = {row["maps"]: row["pair"] for row in RECORD["tables"][0]["rows"]}
    assert f"{found['stage4']:.2f} times the flops of one where the last map is `stage4`" in text
    assert f"{found['stage2']:.2f} times where it is `stage2`" in text
