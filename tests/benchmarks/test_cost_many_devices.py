"""Past one machine: what is read out of a compiled program, and bars that can be missed."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.cost.many_devices import hlo, meshes, tables
from benchmarks.cost.many_devices.decoder import Sizes
from benchmarks.cost.many_devices.steps import STEPS

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


def four_devices():
    return meshes.mesh_of({"fsdp": 4}, jax.devices()[:4])


def test_a_collective_in_a_loop_counts_as_often_as_it_runs():
    found = hlo.collectives(LOOP)
    assert found["all-reduce"] == (6, 5 * 16 + 20)
    assert found["all-gather"] == (1, 16)
    # A collective that stands in several fusions shares its channel.
    assert hlo.collectives(LOOP.replace("channel_id=3", "channel_id=1"))["all-reduce"][0] == 5
    unknown = LOOP.split(", backend_")[0] + "\n}\n"
    with pytest.raises(ValueError, match="`text` should say how often its loops run, got none for"):
        hlo.collectives(unknown)
    assert hlo.collectives(unknown, trips=7)["all-reduce"] == (7, 7 * 16)


def test_products_of_a_compiled_loop_are_counted():
    def scanned(x, w):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    args = jnp.ones((8, 16)), jnp.ones((6, 16, 16))
    assert hlo.product_flops(jax.jit(scanned).lower(*args).compile().as_text()) == 6 * 4096


def test_every_bar_can_be_missed():
    none, two = dict.fromkeys(hlo.KINDS, 0), dict.fromkeys(hlo.KINDS, 0) | {"all-reduce": 2}
    assert tables.missed_by_update("Adam", none, 1) == tables.missed_by_update("dtnh", two, 3) == []
    assert tables.missed_by_update("dtnh", none, 1) == ["dtnh: 0 all-reduces, expected 1"]
    assert tables.missed_by_update("dtnh", two, 1) == ["dtnh: 2 all-reduces, expected 1"]
    base = {"step": "x", **none, "all-gather GiB": 1.0, "all-reduce GiB": 1.0}
    base |= {"temporary GiB": 1.0, "TFLOP": 1.0}
    more = base | {"all-gather": 3, "all-reduce GiB": 1.1, "temporary GiB": 2.0}
    assert len(tables.missed_by_l2_sp(more, base)) == 3
    worse = {q: bar + 0.1 for q, bar in tables.PAIR.items()}
    assert len(tables.missed_by_pair(base | worse, base)) == 3
    assert tables.missed_by_l2_sp(base, base) == tables.missed_by_pair(base, base) == []


@pytest.mark.slow
def test_whole_steps_stay_within_their_bars_and_a_pair_recomputes_the_layers():
    names = ("Adam", "add_l2_sp, Adam", "distance in the loss, Adam", "dtnh, inner=scale_by_adam")
    chosen = {name: STEPS[name] for name in names}
    table = tables.step_table(four_devices(), TINY, chosen, on_cpu=True)
    adam, l2_sp, one, pair = table.rows
    assert tables.missed_by_l2_sp(l2_sp, adam) == []
    assert adam["all-gather GiB"] > 0 < l2_sp["all-reduce GiB"] - adam["all-reduce GiB"]
    assert l2_sp["arguments GiB"] > 1.3 * adam["arguments GiB"]
    assert 1.6 < pair["TFLOP"] / one["TFLOP"] <= tables.PAIR["TFLOP"]
