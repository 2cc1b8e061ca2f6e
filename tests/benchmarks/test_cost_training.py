"""The cost of a training step and of a gradient pair: the records, and narrow networks."""

import functools

import jax
import pytest

from benchmarks.cost import feature_distance, training_step
from benchmarks.cost.compiled import NOT_RUN, StepCost, step_cost
from benchmarks.cost.training_step import LAST
from optax_dtnh.models import resnet18

narrow = functools.partial(resnet18, width=16)  # in narrower ones, what is elementwise counts


def test_a_bar_can_be_missed():
    costs = {"L2-SP": StepCost(1.0, 1.0, 0.0), "L2-SP + DTNH": StepCost(1.02, float("nan"), 0.0)}
    assert "flops" in training_step.missed("L2-SP + DTNH", costs)[0]
    row = {"pair": 1.5, "zero array": 1.4}
    assert len(feature_distance.missed("stage2", row, 1.41, late=False)) == 2


def test_flops_and_peak_are_those_of_a_product_by_hand():
    program = jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((8, 8), "float32")).compile()
    assert step_cost(program) == StepCost(flops=2 * 8**3, peak=2 * 8 * 8 * 4, temporary=0)


@pytest.mark.slow
def test_dtnh_is_free_with_l2_sp_and_half_as_much_again_with_a_teacher():
    _, programs = training_step.compiled(narrow, NOT_RUN)
    costs = {name: step_cost(program) for name, program in programs.items()}
    assert not training_step.missed("L2-SP + DTNH", costs)
    assert costs["L2-SP"].flops > costs["fine-tuning"].flops  # there is a regularizer
    ratio = costs["KnowDist + DTNH"].flops / costs["KnowDist"].flops
    assert 1.4 < ratio <= training_step.BARS["KnowDist + DTNH"]["flops"]


@pytest.mark.slow
def test_a_pair_is_cheaper_the_earlier_the_map_is():
    early, late = (feature_distance.ratios(narrow, maps) for maps in (("stage2",), LAST))
    assert early["pair"] <= feature_distance.BARS["stage2",] < early["zero array"]
    assert early["pair"] < late["pair"] - 0.1
    assert late["pair"] <= feature_distance.BARS[LAST]
