"""The update alone, both gradients given, and what it may add to the communication."""

from collections.abc import Mapping

import jax
import optax

from benchmarks.cost.compiled import step_of
from benchmarks.cost.controls import GATHERING
from benchmarks.cost.many_devices import meshes
from benchmarks.cost.many_devices.decoder import Sizes
from benchmarks.cost.many_devices.steps import SGD, STEPS, WEIGHT, params_on
from benchmarks.cost.uses import Use, one_gradient, pair
from optax_dtnh import dtnh, per_element

ELEMENTS = "dtnh, labels=per_element, SGD"  # decides without a sum
# All-reduces of one sum over the parameters, those of leaves combined, by the axes of the mesh. XLA
# reduces over one cut dimension after the other, the last one first: on two axes, `fsdp, tensor`
# and `tensor, fsdp` both occur, and the shortest sequence that has both has three.
STAGES = {1: 1, 2: 3}
# Sums that wait for one another: the mean of the second moment, and the inner products.
ROUNDS = {"scale_by_adam_dtnh": 2, "SGD": 0, "Adam": 0, ELEMENTS: 0}
ALONE = ("SGD", "add_l2_sp, SGD", "Adam", "add_l2_sp, Adam")
UPDATES = {
    **{name: Use(STEPS[name].transformation, one_gradient) for name in ALONE},
    "dtnh, SGD": Use(optax.chain(dtnh(WEIGHT), SGD), pair),
    ELEMENTS: Use(optax.chain(dtnh(WEIGHT, labels=per_element), SGD), pair),
    **{
        name: Use(STEPS[name].transformation, pair)
        for name in ("dtnh, inner=scale_by_adam", "scale_by_adam_dtnh")
    },
}
CONTROLS = {"by hand, vdot": GATHERING.then(SGD)}


def program(use: Use, sizes: Sizes, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Return the update lowered for abstract arguments on `mesh`, parameters and state donated."""
    params = params_on(mesh, sizes)
    state = meshes.state_of(use.transformation, params, mesh)
    return jax.jit(step_of(use), donate_argnums=(0, 1)).lower(params, state, params, params)


def broken(name: str, found: Mapping[str, int], stages: int) -> list[str]:
    """Return a message for every bar missed by an update, whose optimizer communicates nothing.

    `stages` all-reduces are what one sum over the parameters takes. With one, the bar is exact.
    """
    count, most = found["all-reduce"], ROUNDS.get(name, 1) * stages
    holds = count == most if stages == 1 else count <= most
    failures = [] if holds else [f"{name}: {count} all-reduces, expected {most}"]
    others = {kind: n for kind, n in found.items() if kind != "all-reduce" and n}
    return failures + ([f"{name}: {others}, expected no other collective"] if others else [])
