"""What an update with L2-SP and Adam costs by where its anchor is, compiled for many devices."""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cost.anchor.host import HostAnchor, l2_sp_and_adam, with_anchor
from benchmarks.cost.many_devices import decoder, meshes
from benchmarks.cost.many_devices.decoder import LLAMA_7B, Sizes
from benchmarks.cost.tables import Table

WEIGHT = 0.1
FORMS: dict[str, tuple[dict[str, Any], bool]] = {
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
    params = meshes.tree(mesh, decoder.shapes(sizes), decoder.AXES)
    n = 4 * sum(math.prod(x.shape) for x in jax.tree.leaves(params)) / len(devices)
    programs = {"Adam alone": adam_alone(params, mesh)}
    programs |= {name: program(params, mesh, *form) for name, form in FORMS.items()}
    rows = [{"anchor": name, **_row(*made, n)} for name, made in programs.items()]
    title = f"update with Adam, {platform}, {len(devices)} devices, N = {n / 2**30:.3f} GiB on each"
    return Table(title, rows, missed(platform, rows))


def missed(platform: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a message where arguments are not where they should be, to a thousandth of N."""
    expected = [
        (row["anchor"], name, row[name], where.get(row["anchor"], 0))
        for row in rows
        for name, where in (("device arguments", ON_DEVICE), ("host arguments", ON_HOST))
    ]
    return [
        f"{platform}, {anchor}: {found:.4f} N of {name}, expected {n} N"
        for anchor, name, found, n in expected
        if not abs(found - n) <= 1e-3
    ]


def adam_alone(params: Any, mesh: jax.sharding.Mesh) -> tuple[jax.stages.Compiled, float]:
    """Return the compiled update of Adam, and the bytes it has in the host's memory."""
    tx = optax.adam(1e-4)
    step = stepping(lambda g, state, p: tx.update(g, state, p))
    return _compiled(step, params, meshes.state_of(tx, params, mesh), params), 0.0


def program(
    params: Any, mesh: jax.sharding.Mesh, options: dict[str, Any], on_host: bool
) -> tuple[jax.stages.Compiled, float]:
    """Return the compiled update of L2-SP and Adam, and the bytes it has in the host's memory."""
    tx = l2_sp_and_adam(WEIGHT, **options)
    state = meshes.state_of(tx, params, mesh)
    if not on_host:
        step = stepping(lambda g, state, p: tx.update(g, state, p))
        return _compiled(step, params, state, params), 0.0
    anchor = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=x.sharding.with_memory_kind("pinned_host")
        ),
        state[0].anchor,
    )
    step = stepping(lambda g, state, p, a: HostAnchor(tx).update(g, state, a, p))
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(anchor))
    return _compiled(step, params, with_anchor(state, None), params, anchor), size / mesh.size


def stepping(update: Callable[..., Any]) -> Callable[..., Any]:
    """Return the training step's last part, from gradients to new parameters and state."""

    def step(params, state, grads, *anchor):
        updates, state = update(grads, state, params, *anchor)
        return optax.apply_updates(params, updates), state

    return step


def same_table() -> Table:
    """Train with the anchor on the device and in the host's memory: the parameters are the same."""
    near, away = (trained(on_host) for on_host in (False, True))
    same = all(map(np.array_equal, jax.tree.leaves(near), jax.tree.leaves(away)))
    kinds = sorted(str(m.kind) for m in jax.devices()[0].addressable_memories())
    row = {"memories": ", ".join(kinds), "steps": STEPS, "same bits": same}
    failures = [] if same else ["host: other parameters than with the anchor on the device"]
    return Table("anchor in the host's memory against on the device, trained here", [row], failures)


def trained(on_host: bool) -> Any:
    """Return the parameters after a few steps on the gradient of `sum(w^4)`, on this backend."""
    params = {"w": jnp.linspace(-1.0, 1.0, 64).reshape(8, 8), "b": jnp.ones(8)}
    chain = l2_sp_and_adam(WEIGHT)
    gradient = lambda p: jax.tree.map(lambda x: 4 * x**3, p)  # noqa: E731
    if on_host:
        apart = HostAnchor(chain)
        state, *anchor = apart.init(params)
        update = stepping(lambda g, state, p, a: apart.update(g, state, a, p))
    else:
        state, anchor = chain.init(params), []
        update = stepping(lambda g, state, p: chain.update(g, state, p))
    step = jax.jit(lambda p, s, *a: update(p, s, gradient(p), *a), donate_argnums=(0, 1))
    for _ in range(STEPS):
        params, state = step(params, state, *anchor)
    return params


def _compiled(step: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    return jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()


def _row(compiled: jax.stages.Compiled, on_host: float, n: float) -> dict[str, float]:
    memory, analysis = (
        cast(Any, x) for x in (compiled.memory_analysis(), compiled.cost_analysis())
    )
    # XLA for CPU has one memory, and counts what is in the host's among its arguments.
    everywhere = memory.argument_size_in_bytes + memory.host_argument_size_in_bytes
    return {
        "device arguments": (everywhere - on_host) / n,
        "host arguments": on_host / n,
        "moved per step": on_host / n,
        "temporary": memory.temp_size_in_bytes / n,
        "bytes accessed": analysis["bytes accessed"] / n,
    }
