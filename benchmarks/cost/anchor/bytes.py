"""What an update with L2-SP and Adam costs by where its anchor is, compiled for many devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.compiled import analysis_of, memory_of
from benchmarks.cost.many_devices import meshes
from benchmarks.cost.many_devices.decoder import LLAMA_7B, Sizes
from benchmarks.cost.many_devices.steps import params_on
from benchmarks.cost.trees import size_in_bytes
from benchmarks.cost.uses import WEIGHT
from benchmarks.harness.tables import Table
from optax_dtnh import add_l2_sp

BESIDES = 4  # N of parameters, gradients and Adam's moments
# The dtype of the anchor, and its N on the device and in the host's memory.
ANCHORS = {
    "on the device": (None, 1, 0),
    "bfloat16": (jnp.bfloat16, 0.5, 0),
    "host": (None, 0, 1),
    "bfloat16, host": (jnp.bfloat16, 0, 0.5),
}


def table(platform: str, devices: Sequence[Any], sizes: Sizes = LLAMA_7B) -> Table:
    """Compile the update with every anchor on `devices`, in one mesh of one axis."""
    mesh = meshes.mesh_of({"fsdp": len(devices)}, devices)
    params = params_on(mesh, sizes)
    n = size_in_bytes(params) / len(devices)
    rows = [{"anchor": "Adam alone", **row_of(on_device(optax.adam(1e-4), params, mesh), 0.0, n)}]
    for name, (dtype, _, on_host) in ANCHORS.items():
        tx = optax.chain(add_l2_sp(WEIGHT, anchor_dtype=dtype), optax.adam(1e-4))
        made, moved = away(tx, params, mesh) if on_host else (on_device(tx, params, mesh), 0.0)
        rows.append({"anchor": name, **row_of(made, moved, n)})
    title = f"update with Adam, {platform}, {len(devices)} devices, N = {n / 2**30:.3f} GiB on each"
    return Table(title, rows, missed(platform, rows))


def missed(platform: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a message where arguments are not where they should be, to a thousandth of N."""
    return [
        f"{platform}, {row['anchor']}: {row[name]:.4f} N of {name}, expected {n} N"
        for row in rows
        for _, near, far in [ANCHORS.get(row["anchor"], (None, 0, 0))]
        for name, n in (("device arguments", BESIDES + near), ("host arguments", far))
        if not abs(row[name] - n) <= 1e-3
    ]


def on_device(tx: Any, params: Any, mesh: jax.sharding.Mesh) -> jax.stages.Compiled:
    """Return the compiled update, its whole state on the devices."""
    return _compiled(tx.update, params, meshes.state_of(tx, params, mesh))


def away(tx: Any, params: Any, mesh: jax.sharding.Mesh) -> tuple[jax.stages.Compiled, float]:
    """Return the compiled update with its anchor in the host's memory, and the anchor's bytes.

    As a user writes it: the anchor is an argument of its own, which the step reads and does not
    return, so that parameters and state can be donated, and no version of jax has to keep the
    memory kind of what a compiled program returns.
    """
    state = meshes.state_of(tx, params, mesh)
    anchor = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=x.sharding.with_memory_kind("pinned_host")
        ),
        state[0].anchor,
    )

    def update(grads, state, params, anchor):
        here = jax.device_put(anchor, jax.memory.Space.Device)
        updates, state = tx.update(grads, with_anchor(state, here), params)
        return updates, with_anchor(state, None)

    made = _compiled(update, params, with_anchor(state, None), anchor)
    return made, size_in_bytes(anchor) / mesh.size


def with_anchor(state: Any, anchor: Any) -> Any:
    """Return the state of a chain that begins with `add_l2_sp`, with `anchor` as its anchor."""
    return (state[0]._replace(anchor=anchor), *state[1:])


def row_of(compiled: jax.stages.Compiled, on_host: float, n: float) -> dict[str, float]:
    """Return what an update takes, in N, with `on_host` bytes of its arguments on the host."""
    memory = memory_of(compiled)
    # XLA for CPU has one memory, and counts what is in the host's among its arguments.
    everywhere = memory.argument_size_in_bytes + memory.host_argument_size_in_bytes
    return {
        "device arguments": (everywhere - on_host) / n,
        "host arguments": on_host / n,
        "moved per step": on_host / n,
        "temporary": memory.temp_size_in_bytes / n,
        "bytes accessed": analysis_of(compiled)["bytes accessed"] / n,
    }


def _compiled(
    update: Callable[..., Any], params: Any, state: Any, *anchor: Any
) -> jax.stages.Compiled:
    """Return the training step's last part, from gradients to new parameters and state."""

    def step(params, state, grads, *anchor):
        updates, state = update(grads, state, params, *anchor)
        return optax.apply_updates(params, updates), state

    arguments = params, state, params, *anchor
    return jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()
