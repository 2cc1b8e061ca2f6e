"""The update alone, both gradients given, and what it may add to the communication."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.compiled import step_of
from benchmarks.cost.forms import Form, one_gradient, pair
from benchmarks.cost.many_devices import decoder, meshes
from benchmarks.cost.many_devices.decoder import Sizes
from benchmarks.cost.many_devices.steps import STEPS, WEIGHT
from optax_dtnh import dtnh

# Sums that wait for one another: the mean of the second moment, and the inner products.
ROUNDS = {"scale_by_adam_dtnh": 2, "SGD": 0, "Adam": 0}
CONTROL = "by hand, vdot"


def gathering() -> optax.GradientTransformation:
    """Return the truncated sum of a pair with `jnp.vdot`, which flattens what is cut: a control."""

    def update(updates, state, params=None):  # noqa: ARG001
        g, r = updates
        dot, ref_sq = (
            sum(jax.tree.leaves(jax.tree.map(jnp.vdot, x, g)), jnp.zeros([])) for x in (r, g)
        )
        c = jnp.minimum(dot, 0.0) / ref_sq
        return jax.tree.map(lambda x, y: x + WEIGHT * (y - c * x), g, r), state

    return optax.GradientTransformation(optax.identity().init, update)


def then_sgd(tx: optax.GradientTransformation, update: Any = pair) -> Form:
    """Return the form of `tx` followed by SGD with momentum."""
    return Form(optax.chain(tx, STEPS["SGD"].transformation), update)


def one(name: str) -> Form:
    """Return the form of a step of one gradient."""
    return Form(STEPS[name].transformation, one_gradient)


UPDATES = {
    **{name: one(name) for name in ("SGD", "add_l2_sp, SGD", "Adam", "add_l2_sp, Adam")},
    "dtnh, SGD": then_sgd(dtnh(WEIGHT)),
    "dtnh, inner=scale_by_adam": Form(STEPS["dtnh, inner=scale_by_adam"].transformation, pair),
    "scale_by_adam_dtnh": Form(STEPS["scale_by_adam_dtnh"].transformation, pair),
}
CONTROLS = {CONTROL: then_sgd(gathering())}


def program(form: Form, sizes: Sizes, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Return the update lowered for abstract arguments on `mesh`, parameters and state donated."""
    params = meshes.tree(mesh, decoder.shapes(sizes), decoder.AXES)
    state = meshes.state_of(form.transformation, params, mesh)
    step = jax.jit(step_of(form), donate_argnums=(0, 1))
    return step.lower(params, state, params, params)


def stages_on(mesh: jax.sharding.Mesh, sizes: Sizes) -> int:
    """Return how many all-reduces one sum over all parameters takes on `mesh`."""
    return meshes.stages(meshes.orders(meshes.tree(mesh, decoder.shapes(sizes), decoder.AXES)))


def broken(name: str, found: dict[str, tuple[int, int]], stages: int) -> list[str]:
    """Return a message for every bar missed by an update, whose optimizer communicates nothing.

    Args:
      name: Of the form.
      found: Its collectives.
      stages: All-reduces that one sum over the parameters takes. With one, the bar is exact.
    """
    count, most = found["all-reduce"][0], ROUNDS.get(name, 1) * stages
    held = count == most if stages == 1 else count <= most
    failures = [] if held else [f"{name}: {count} all-reduces, expected {most}"]
    others = {kind: n for kind, (n, _) in found.items() if kind != "all-reduce" and n}
    return failures + ([f"{name}: {others}, expected no other collective"] if others else [])
