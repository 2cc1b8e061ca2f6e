"""A narrower anchor, and one in the host's memory: the recipe, and bars that can be missed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cost.anchor import __main__ as anchor_memory
from benchmarks.cost.anchor import bytes as anchor_cost
from benchmarks.cost.anchor import error as anchor_error
from benchmarks.cost.anchor import host as host_anchor
from benchmarks.cost.many_devices.decoder import Sizes
from benchmarks.cost.tables import Table
from tests.core.helpers import assert_equal
from tests.pages.pages import ROOT, blocks, execute

TINY = Sizes(layers=3, width=64, heads=2, mlp=128, vocabulary=512, batch=4, length=8)


def test_training_with_the_anchor_in_the_hosts_memory_gives_the_same_bits():
    assert anchor_cost.same_table().failures == []


def test_other_parameters_would_be_found(monkeypatch):
    monkeypatch.setattr(anchor_cost, "trained", lambda on_host: {"w": np.ones(2) + on_host})
    assert anchor_cost.same_table().failures == [
        "host: other parameters than with the anchor on the device"
    ]


def test_the_state_that_is_donated_and_returned_holds_no_anchor():
    apart = host_anchor.HostAnchor(host_anchor.l2_sp_and_adam(0.1))
    params = {"w": jnp.arange(4.0)}
    state, anchor = apart.init(params)
    assert_equal(anchor, params)
    assert anchor["w"].sharding.memory_kind == "pinned_host"
    grads = {"w": jnp.ones(4)}
    _, after = jax.jit(apart.update)(grads, state, anchor, params)
    assert state[0].anchor is after[0].anchor is None
    assert jax.tree.structure(state) == jax.tree.structure(after)


@pytest.fixture(scope="module")
def rows():
    found = anchor_cost.table("CPU", jax.devices()[:4], TINY)
    assert found.failures == []
    return {row["anchor"]: row for row in found.rows}


def test_a_narrow_anchor_takes_half_and_one_on_the_host_nothing_on_the_device(rows):
    assert rows["bfloat16"]["device arguments"] == pytest.approx(4.5, abs=1e-3)
    assert rows["host"]["device arguments"] == pytest.approx(4, abs=1e-3)
    assert rows["bfloat16, host"]["moved per step"] == pytest.approx(0.5, abs=1e-3)


def test_an_anchor_in_the_wrong_place_is_a_missed_bar(rows):
    wrong = [{**rows["host"], "anchor": "on the device"}]
    assert anchor_cost.missed("CPU", wrong) == [
        "CPU, on the device: 4.0000 N of device arguments, expected 5 N",
        "CPU, on the device: 1.0000 N of host arguments, expected 0 N",
    ]


def test_the_pull_changes_by_the_rounding_of_the_anchor_and_the_accuracies_are_paired(monkeypatch):
    monkeypatch.setattr(anchor_error, "CELLS", anchor_error.CELLS[:1])
    monkeypatch.setattr(anchor_error, "WEIGHTS", (1.0,))
    pull, accuracy = anchor_error.tables(seeds=2)
    assert pull.failures == accuracy.failures == []
    start, *_, end = pull.rows
    assert start["|w - w_s| / |w_s|"] == 0 < start["change of r / |w_s|"] < 2**-9
    assert start["change of r / |r|"] is None
    assert end["change of r / |r|"] < 0.3
    (row,) = accuracy.rows
    assert row["difference"] == pytest.approx(row["bfloat16"] - row["float32"])


def test_an_error_that_is_too_large_is_a_missed_bar():
    rows = [{"cell": "same", "weight": 1.0, "difference": x} for x in (-0.6, 0.4, float("nan"))]
    assert anchor_error.changed(rows) == [
        "same, 1: -0.60 points, at most 0.5",
        "same, 1: +nan points, at most 0.5",
    ]
    assert anchor_error.too_coarse(0.002) == ["the anchor moves by 2.00e-03 of its norm"]


def test_the_exit_code_tells_of_a_missed_claim_and_the_record_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(jax.config, "update", lambda *args: None)
    for failures in ([], ["z"]):
        table = Table("title", [{"anchor": "host", "temporary": 0.5}], failures)
        monkeypatch.setattr(anchor_memory, "measure", lambda tpu, seeds, table=table: [table])
        assert anchor_memory.main(["--out", str(tmp_path / "a.json")]) == len(failures)
    assert json.loads((tmp_path / "a.json").read_text())["tables"][0]["failures"] == ["z"]
    assert (tmp_path / "a.md").read_text().endswith("| host | 0.5 |\n")


def test_the_recipe_on_the_page_trains_and_keeps_the_anchor_away_from_the_device():
    _, program = blocks("docs/scaling.md", "python")
    found = execute(program, "docs/scaling.md")
    assert found["anchor"]["w"].sharding.memory_kind == "pinned_host"
    assert_equal(found["anchor"], {"w": jnp.arange(4.0)})
    assert found["state"][0].anchor is None
    assert np.abs(found["params"]["w"] - np.arange(4.0)).max() > 1e-4


def test_the_errors_on_the_page_are_those_of_the_record():
    record = json.loads((ROOT / "benchmarks" / "results" / "cost.anchor.json").read_text())
    assert [table["failures"] for table in record["tables"]] == [[]] * len(record["tables"])
    page = " ".join((ROOT / "docs" / "scaling.md").read_text().split())
    pull, accuracy = (table["rows"] for table in record["tables"][-2:])
    assert f"{pull[0]['change of r / |w_s|']:.1e}".replace("e-03", "e-3") + " of their norm" in page
    once, ten, last = (row["change of r / |r|"] for row in pull[1:])
    assert f"it is {once:.1f} times the pull itself, after 10 it is {ten:.0%}" in page.replace(
        " %", "%"
    )
    assert f"after 150 it is {last:.0%}" in page.replace(" %", "%")
    most = max(abs(row["difference"]) for row in accuracy)
    assert f"the mean by at most {most:.2f} points, and every 95 % interval contains 0" in page
    assert all(abs(row["difference"]) <= row["95 % interval, +-"] for row in accuracy)
