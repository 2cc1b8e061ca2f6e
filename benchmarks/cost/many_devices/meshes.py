"""Meshes of many devices, and trees of abstract arrays cut over them: nothing is allocated."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DEVICES = 64

Axes = tuple[str | None, ...]


def use_virtual_devices() -> None:
    """Make this CPU 64 devices, before jax starts one."""
    # The compiler for TPU would look for its machine on the network.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)


def mesh_of(shape: dict[str, int], devices: Sequence[Any]) -> Mesh:
    """Return a mesh of the axes in `shape`, by name and number of devices."""
    kinds = (AxisType.Auto,) * len(shape)
    return jax.make_mesh(tuple(shape.values()), tuple(shape), kinds, devices=devices)


def topology(name: str) -> Sequence[Any]:
    """Return the devices of a TPU topology such as `v5e:8x8`, which need not be there."""
    from jax.experimental import topologies  # needs libtpu where it is called

    return topologies.get_topology_desc(name, "tpu").devices


def array(mesh: Mesh, shape: tuple[int, ...], axes: Axes, dtype: Any = jnp.float32) -> Any:
    """Return an abstract array, its dimensions cut by those of `axes` that the mesh has."""
    spec = PartitionSpec(*(axis if axis in mesh.axis_names else None for axis in axes))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def state_of(tx: optax.GradientTransformation, params: Any, mesh: Mesh) -> Any:
    """Return the abstract state: what is shaped like a parameter lies where it does."""
    whole = NamedSharding(mesh, PartitionSpec())
    return optax.tree.map_params(
        tx,
        lambda x, p: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=p.sharding),
        jax.eval_shape(tx.init, params),
        params,
        transform_non_params=lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
    )
