"""Meshes of many devices, and trees of abstract arrays cut over them: nothing is allocated."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Axes = tuple[str | None, ...]


def mesh_of(shape: dict[str, int], devices: Sequence[Any]) -> Mesh:
    """Return a mesh of the axes in `shape`, by name and number of devices."""
    kinds = (AxisType.Auto,) * len(shape)
    return jax.make_mesh(tuple(shape.values()), tuple(shape), kinds, devices=devices)


def array(mesh: Mesh, shape: tuple[int, ...], axes: Axes, dtype: Any = jnp.float32) -> Any:
    """Return an abstract array, its dimensions cut by those of `axes` that the mesh has."""
    spec = PartitionSpec(*(axis if axis in mesh.axis_names else None for axis in axes))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def tree(mesh: Mesh, shapes: Any, axes: Any) -> Any:
    """Return `array` for every leaf of `shapes`, trees of tuples of the structure of `axes`."""
    is_leaf = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(lambda s, a: array(mesh, s, a), shapes, axes, is_leaf=is_leaf)


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


def orders(params: Any) -> set[tuple[frozenset[str], ...]]:
    """Return the axes that leaves are cut by, a set for every cut dimension, the last one first.

    In this order XLA's partitioner reduces over them, one dimension after the other.
    """
    specs = {leaf.sharding.spec for leaf in jax.tree.leaves(params)}
    return {
        tuple(frozenset([axes] if isinstance(axes, str) else axes) for axes in cut)
        for spec in specs
        if (cut := [axes for axes in reversed(spec) if axes])
    }


def stages(found: set[tuple[frozenset[str], ...]]) -> int:
    """Return how many all-reduces one sum over all leaves takes, those of leaves combined.

    The length of the shortest sequence that every order is a subsequence of.
    """
    axes = {x for order in found for x in order}
    return next(
        n
        for n in itertools.count()
        for sequence in itertools.product(axes, repeat=n)
        if all(_within(order, sequence) for order in found)
    )


def _within(order: Sequence[Any], sequence: Sequence[Any]) -> bool:
    rest = iter(sequence)
    return all(x in rest for x in order)
