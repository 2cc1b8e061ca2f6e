"""What an update with L2-SP and Adam costs by where its anchor is, compiled for many devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cost.anchor.host import HostAnchor, l2_sp_and_adam, with_anchor
from benchmarks.cost.compiled import analysis_of, memory_of
from benchmarks.cost.many_devices import meshes
from benchmarks.cost.many_devices.decoder import LLAMA_7B, Sizes
from benchmarks.cost.many_devices.steps import params_on
from benchmarks.cost.trees import size_in_bytes
from benchmarks.cost.uses import WEIGHT
from benchmarks.harness.tables import Table

# The options of `add_l2_sp`, and whether its anchor is in the host's memory.
ANCHORS: dict[str, tuple[dict[str, Any], bool]] = {
    "on the device": ({}, False),
    "bfloat16": ({"anchor_dtype": jnp.bfloat16}, False),
    "host": ({}, True),
    "bfloat16, host": ({"anchor_dtype": jnp.bfloat16}, True),
}
# In N: parameters, gradients and Adam's moments, and the anchor.
ON_DEVICE = {"Adam alone": 4, "on the device": 5, "bfloat16": 4.5, "host": 4, "bfloat16, host": 4}
ON_HOST = {"host": 1, "bfloat16, host": 0.5}
STEPS = 3


def table(platform: str, devices: Sequence[Any], sizes: Sizes = LLAMA_7B) -> Table:
    """Compile the update with every anchor on `devices`, in one mesh of one axis."""
    mesh = meshes.mesh_of({"fsdp": len(devices)}, devices)
    params = params_on(mesh, sizes)
    n = size_in_bytes(params) / len(devices)
    rows = [{"anchor": "Adam alone", **row_of(on_device(optax.adam(1e-4), params, mesh), 0.0, n)}]
    for name, (options, on_host) in ANCHORS.items():
        tx = l2_sp_and_adam(WEIGHT, **options)
        made, moved = away(tx, params, mesh) if on_host else (on_device(tx, params, mesh), 0.0)
        rows.append({"anchor": name, **row_of(made, moved, n)})
    title = f"update with Adam, {platform}, {len(devices)} devices, N = {n / 2**30:.3f} GiB on each"
    return Table(title, rows, missed(platform, rows))


def missed(platform: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a message where arguments are not where they should be, to a thousandth of N."""
    return [
        f"{platform}, {row['anchor']}: {row[name]:.4f} N of {name}, expected {n} N"
        for row in rows
        for name, where in (("device arguments", ON_DEVICE), ("host arguments", ON_HOST))
        for n in [where.get(row["anchor"], 0)]
        if not abs(row[name] - n) <= 1e-3
    ]


def on_device(tx: Any, params: Any, mesh: jax.sharding.Mesh) -> jax.stages.Compiled:
    """Return the compiled update, its whole state on the devices."""
    return _compiled(stepping(tx.update), params, meshes.state_of(tx, params, mesh), params)


def away(tx: Any, params: Any, mesh: jax.sharding.Mesh) -> tuple[jax.stages.Compiled, float]:
    """Return the compiled update with its anchor in the host's memory, and the anchor's bytes."""
    state = meshes.state_of(tx, params, mesh)
    anchor = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=x.sharding.with_memory_kind("pinned_host")
        ),
        state[0].anchor,
    )
    step = stepping(HostAnchor(tx).update)
    made = _compiled(step, params, with_anchor(state, None), params, anchor)
    return made, size_in_bytes(anchor) / mesh.size


def stepping(update: Callable[..., Any]) -> Callable[..., Any]:
    """Return the training step's last part, from gradients to new parameters and state.

    An anchor apart comes before the parameters in `update`.
    """

    def step(params, state, grads, *anchor):
        updates, state = update(grads, state, *anchor, params)
        return optax.apply_updates(params, updates), state

    return step


def same_table() -> Table:
    """Train with the anchor on the device and in the host's memory: the parameters are the same."""
    near, far = (trained(on_host) for on_host in (False, True))
    same = all(map(np.array_equal, jax.tree.leaves(near), jax.tree.leaves(far)))
    kinds = sorted(str(m.kind) for m in jax.devices()[0].addressable_memories())
    row = {"memories": ", ".join(kinds), "steps": STEPS, "same bits": same}
    failures = [] if same else ["host: other parameters than with the anchor on the device"]
    return Table("anchor in the host's memory against on the device, trained here", [row], failures)


def trained(on_host: bool) -> Any:
    """Return the parameters after a few steps on the gradient of `sum(w^4)`, on this backend."""
    params = {"w": jnp.linspace(-1.0, 1.0, 64).reshape(8, 8), "b": jnp.ones(8)}
    chain: Any = l2_sp_and_adam(WEIGHT)
    if on_host:
        chain = HostAnchor(chain)
        state, *anchor = chain.init(params)
    else:
        state, anchor = chain.init(params), []
    gradient = lambda p: jax.tree.map(lambda x: 4 * x**3, p)  # noqa: E731
    update = stepping(chain.update)
    step = jax.jit(lambda p, s, *a: update(p, s, gradient(p), *a), donate_argnums=(0, 1))
    for _ in range(STEPS):
        params, state = step(params, state, *anchor)
    return params


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


def _compiled(step: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    return jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()
