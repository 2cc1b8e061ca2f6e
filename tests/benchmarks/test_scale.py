"""Past one machine: what is read out of a compiled program, and bars that can be missed."""

import json
import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.cost.controls import DIVISION_LAST, SELECTION_LAST
from benchmarks.cost.many_devices import __main__ as scale
from benchmarks.cost.many_devices import (
    decoder,
    figure,
    growth,
    hlo,
    meshes,
    report,
    steps,
    tables,
    updates,
)
from benchmarks.cost.many_devices.decoder import LLAMA_7B, Sizes
from benchmarks.cost.tables import Table
from tests.pages.pages import ROOT

TINY = Sizes(layers=3, width=16, heads=2, mlp=32, vocabulary=64, batch=4, length=8)
LOOP = """
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]) parameter(0)
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %r = f32[4]{0} all-reduce(%x), channel_id=1
  ROOT %t = (s32[], f32[4]{0}) tuple(%p, %r)
}

ENTRY %main (a: f32[4]) -> f32[8] {
  %a = f32[4]{0} parameter(0)
  %w = (s32[], f32[4]{0}) while(%a), body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %g = (bf16[4]{0}, bf16[8]{0}) all-gather-start(%a), channel_id=2, dimensions={0}
  %d = bf16[8]{0} all-gather-done(%g)
  ROOT %s = (f32[4]{0}, f32[]) all-reduce(%a, %a), channel_id=3
}
"""


def on(*shape):
    return meshes.mesh_of(dict(zip(("fsdp", "tensor"), shape, strict=False)), jax.devices()[:4])


def collectives(fun, mesh, *specs):
    x = [
        jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*s)))
        for s in specs
    ]
    return hlo.collectives(jax.jit(fun).lower(*x).compile().as_text())


def test_a_collective_in_a_loop_counts_as_often_as_it_runs():
    found = hlo.collectives(LOOP)
    assert found["all-reduce"] == (6, 5 * 16 + 20)
    assert found["all-gather"] == (1, 16)
    longer = hlo.collectives(LOOP.replace('"n":"5"', '"n":"9"'))
    assert longer["all-reduce"] == (10, 9 * 16 + 20)


def test_a_loop_of_unknown_length_is_refused_unless_its_length_is_given():
    text = LOOP.split(", backend_")[0]
    text += "\n}\n"
    with pytest.raises(ValueError, match="`text` should say how often its loops run, got none for"):
        hlo.collectives(text)
    assert hlo.collectives(text, trips=7)["all-reduce"] == (7, 7 * 16)


def test_a_collective_that_stands_in_several_fusions_is_one():
    assert hlo.collectives(LOOP.replace("channel_id=3", "channel_id=1"))["all-reduce"][0] == 5


def test_collectives_are_found_where_there_are_some_and_not_where_there_are_none():
    mesh = on(4)
    assert collectives(lambda x: 2 * x, mesh, ("fsdp",)) == dict.fromkeys(hlo.KINDS, (0, 0))
    assert collectives(jnp.sum, mesh, ("fsdp",))["all-reduce"] == (1, 4)
    whole = NamedSharding(mesh, PartitionSpec())
    gathered = collectives(lambda x: jax.lax.with_sharding_constraint(x, whole), mesh, ("fsdp",))
    assert gathered["all-gather"] == (1, 8 * 8 * 4)


def test_products_in_a_scan_count_as_often_as_it_runs():
    def fun(x, w):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    args = (
        jax.ShapeDtypeStruct((8, 16), jnp.float32),
        jax.ShapeDtypeStruct((6, 16, 16), jnp.float32),
    )
    assert hlo.product_flops(jax.jit(fun).lower(*args).compile().as_text()) == 6 * 2 * 8 * 16 * 16


def test_the_decoder_has_the_size_of_llama_7b():
    leaves = jax.tree.leaves(decoder.shapes(LLAMA_7B), is_leaf=lambda x: isinstance(x, tuple))
    assert sum(math.prod(shape) for shape in leaves) == 6_738_415_616


def test_the_decoder_sees_the_tokens_before_and_none_after():
    shapes = decoder.shapes(TINY)
    keys = iter(jax.random.split(jax.random.key(0), 12))
    params = jax.tree.map(
        lambda s: jax.random.normal(next(keys), s), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )
    tokens = jax.random.randint(jax.random.key(1), (4, 8), 0, 64)
    with jax.set_mesh(on(4)):
        state = jax.jit(lambda t: decoder.last_state(TINY, params, t))
        changed = state(tokens.at[:, 5].add(1)) - state(tokens)
    moved = jnp.abs(changed).max((0, 2)) > 1e-3
    assert moved.tolist() == [False] * 5 + [True] * 3


@pytest.mark.parametrize("name", ["Adam", "add_l2_sp, Adam", "dtnh, SGD", "scale_by_adam_dtnh"])
@pytest.mark.parametrize("shape", [(4,), (2, 2)], ids=["fsdp", "fsdp x tensor"])
def test_an_update_adds_only_all_reduces_of_scalars(name, shape):
    mesh = on(*shape)
    compiled = updates.program(updates.UPDATES[name], TINY, mesh).compile()
    found = hlo.collectives(compiled.as_text())
    assert updates.broken(name, found, updates.stages_on(mesh, TINY)) == []
    assert found["all-reduce"][1] < 1024


def test_an_update_by_hand_would_gather_leaves_and_an_optimizer_has_no_collective():
    (form,) = updates.CONTROLS.values()
    found = hlo.collectives(updates.program(form, TINY, on(4)).compile().as_text())
    assert ["all-gather" in message for message in updates.broken("by hand", found, 1)] == [True]
    none = dict.fromkeys(hlo.KINDS, (0, 0))
    assert updates.broken("Adam", none, 1) == []
    assert updates.broken("dtnh", none, 1) == ["dtnh: 0 all-reduces, expected 1"]
    two = none | {"all-reduce": (2, 8)}
    assert updates.broken("dtnh", two, 1) == ["dtnh: 2 all-reduces, expected 1"]
    assert updates.broken("dtnh", two, 3) == updates.broken("scale_by_adam_dtnh", two, 1) == []


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ([("fsdp",)], 1),
        ([("fsdp", "tensor")], 2),
        ([(("fsdp", "tensor"),)], 1),
        ([("fsdp", "tensor"), ("fsdp",)], 2),
        ([("fsdp", "tensor"), ("tensor", "fsdp")], 3),
        ([("fsdp",), (None, "fsdp"), ()], 1),
    ],
)
def test_a_sum_takes_as_many_all_reduces_as_the_orders_of_the_axes_need(specs, expected):
    mesh = on(2, 2)
    leaves = [
        jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*s)))
        for s in specs
    ]
    assert meshes.stages(meshes.orders(leaves)) == expected
    total = collectives(lambda *xs: sum(map(jnp.sum, xs)), mesh, *specs)
    assert total["all-reduce"][0] == expected


@pytest.fixture(scope="module")
def whole_steps():
    names = ("Adam", "add_l2_sp, Adam", "distance in the loss, Adam", "dtnh, inner=scale_by_adam")
    chosen = {name: steps.STEPS[name] for name in names}
    return tables.step_table(on(4), TINY, chosen, on_cpu=True)


def test_l2_sp_adds_the_anchor_and_scalars_to_a_whole_step(whole_steps):
    rows = {row["step"]: row for row in whole_steps.rows}
    with_it, alone = rows["add_l2_sp, Adam"], rows["Adam"]
    assert with_it["all-gather GiB"] == alone["all-gather GiB"] > 0
    assert with_it["TFLOP"] == alone["TFLOP"] > 0
    assert 0 < (with_it["all-reduce GiB"] - alone["all-reduce GiB"]) * 2**30 < tables.SCALARS
    assert with_it["arguments GiB"] > 1.3 * alone["arguments GiB"]


def test_a_pair_with_recomputed_layers_takes_seven_parts_where_one_gradient_takes_four(whole_steps):
    rows = {row["step"]: row for row in whole_steps.rows}
    one = rows["distance in the loss, Adam"]["TFLOP"]
    assert 1.6 < rows["dtnh, inner=scale_by_adam"]["TFLOP"] / one <= tables.PAIR["TFLOP"]


def test_whole_steps_can_miss_every_bar():
    base = {"step": "Adam", "all-reduce GiB": 1.0, "temporary GiB": 1.0, "TFLOP": 1.0}
    base |= {"all-gather": 2, "all-gather GiB": 1.0}
    base |= {kind: 0 for kind in hlo.KINDS if kind not in base}
    more = base | {"step": "x", "all-gather": 3, "all-reduce GiB": 1.1, "temporary GiB": 2.0}
    assert tables.missed_by_l2_sp(base, base) == []
    assert [message.split()[1:3] for message in tables.missed_by_l2_sp(more, base)] == [
        ["3", "all-gather,"],
        ["107374182", "more"],
        ["temporaries", "2.000"],
    ]
    assert tables.missed_by_pair(base, base) == []
    worse = base | {"step": "x", "TFLOP": 1.8, "all-gather GiB": 1.6, "all-reduce GiB": 2.1}
    assert len(tables.missed_by_pair(worse, base)) == 3


def test_the_update_grows_linearly_in_leaves_and_a_selection_at_the_end_would_not():
    counts = (10, 20, 40)

    def instructions(form):
        return {n: growth.cost(form, growth.equal_leaves(n, 400_000)).instructions for n in counts}

    for form in (growth.CHOSEN["dtnh"], DIVISION_LAST):
        assert growth.not_linear("form", instructions(form)) == []
    assert growth.not_linear("form", instructions(SELECTION_LAST))


def test_parameters_change_neither_the_program_nor_the_bytes_of_each():
    table = growth.sizes_table({"dtnh": growth.CHOSEN["dtnh"]}, sizes=(1_000_000, 7_000_000_000))
    assert table.failures == []
    assert growth.not_constant("x", [1.0, 1.2]) == ["x: from 1 to 1.2, at most 1.05 times"]


def test_a_quick_compilation_counts_the_same(monkeypatch):
    forms = {"dtnh": growth.CHOSEN["dtnh"]}
    assert growth.options_table(forms, count=8).failures == []
    costs = iter([growth.Cost(1.0, 0.0, 10, 1, 0.1), growth.Cost(1.0, 0.0, 11, 1, 0.2)])
    monkeypatch.setattr(growth, "cost", lambda *args: next(costs))
    assert len(growth.options_table(forms).failures) == 1


def test_the_figure_has_a_line_for_every_form_in_both_panels():
    leaves = [{"form": f, "leaves": n, "instructions": n} for f in ("a", "b") for n in (1, 2)]
    sizes = [{"form": f, "parameters": n, "bytes": 6.0} for f in ("a", "b") for n in (1, 2)]
    left, right = figure.draw(leaves, sizes).axes
    for axes in (left, right):
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert len({(x.get_marker(), x.get_linestyle()) for x in axes.get_lines()}) == 2
    assert list(right.get_lines()[0].get_ydata()) == [24, 48]


def test_the_exit_code_tells_of_a_missed_claim_and_the_record_is_written(monkeypatch, tmp_path):
    rows = [{"update": "dtnh", "all-reduce": 1, "all-reduce GiB": 8 / 2**30, "TFLOP": None}]
    monkeypatch.setattr(jax.config, "update", lambda *args: None)
    for failures in ([], ["z"]):
        table = Table("title", rows, failures)
        monkeypatch.setattr(scale, "on_cpu", lambda table=table: [table])
        assert scale.main(["--out", str(tmp_path / "scale.json")]) == len(failures)
    assert json.loads((tmp_path / "scale.json").read_text())["tables"][0]["failures"] == ["z"]
    page = (tmp_path / "scale.md").read_text()
    assert "| update | all-reduce | all-reduce bytes |\n|---|---|---|\n| dtnh | 1 | 8 |" in page


def test_a_column_that_holds_nothing_is_left_out():
    record = {"environment": {"jax": "1"}, "compiled for": "x"}
    table = {"title": "t", "rows": [{"a": 1.23456, "b": 0, "c": None}], "failures": []}
    assert report.markdown(record | {"tables": [table]}).endswith("| a |\n|---|\n| 1.235 |\n")


def test_the_figures_on_the_page_are_those_of_the_record():
    record = json.loads((ROOT / "benchmarks" / "results" / "cost.many_devices.json").read_text())
    assert record["environment"]["dirty"] is False
    assert [table["failures"] for table in record["tables"]] == [[]] * len(record["tables"])
    page = (ROOT / "docs" / "scaling.md").read_text()
    rows = {row["step"]: row for row in record["tables"][2]["rows"]}
    shown = {
        "Adam": "Adam",
        "`add_l2_sp`, Adam": "add_l2_sp, Adam",
        "`dtnh(inner=scale_by_adam())`, feature distance": "dtnh, inner=scale_by_adam",
    }
    for title, name in shown.items():
        r = rows[name]
        memory = f"{r['arguments GiB']:.2f} | {r['temporary GiB']:.2f}"
        moved = f"{r['all-gather GiB']:.1f} | {r['all-reduce GiB']:.1f} | {r['TFLOP']:.1f}"
        assert f"| {title} | {memory} | {moved} |" in page
    one, two = rows["distance in the loss, Adam"], rows["dtnh, inner=scale_by_adam"]
    ratios = [f"{two[q] / one[q]:.2f} times" for q in tables.PAIR]
    assert all(ratio in " ".join(page.split()) for ratio in ratios)
