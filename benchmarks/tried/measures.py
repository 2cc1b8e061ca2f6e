"""What is measured of an idea beyond `benchmarks.cost`: kernels, collectives, rounding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.cost.compiled import step_of
from benchmarks.cost.forms import Form, followed_by, sgd
from benchmarks.cost.trees import as_params, small_leaves
from benchmarks.tried.sums import Products

DEVICES, LEAF = 8, (2304, 1024)


def fusions(compiled: jax.stages.Compiled) -> int:
    """Return the number of kernels of more than one operation, a launch each on an accelerator."""
    return (compiled.as_text() or "").count(" fusion(")


def sharded(form: Form, leaves: int = 24) -> dict[str, int]:
    """Return the collectives of an update whose leaves are sharded, by turns on each axis."""
    mesh = Mesh(np.array(jax.devices()[:DEVICES]), ("data",))
    params = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_placed(mesh, i, x.ndim))
        for i, (name, x) in enumerate(as_params(small_leaves(leaves)).items())
    }
    form = followed_by(form, sgd())
    step = jax.jit(step_of(form), donate_argnums=(0, 1))
    state = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        jax.eval_shape(form.transformation.init, params),
        _places(form, params, mesh),
    )
    text = step.lower(params, state, params, params).compile().as_text() or ""
    kinds = ("all-reduce", "all-gather", "collective-permute", "all-to-all")
    return {kind: text.count(f" {kind}(") + text.count(f" {kind}-start(") for kind in kinds}


def error_of(products: Products) -> float:
    """Return the relative error of `<m, m>` on one large leaf, against float64."""
    m = np.random.default_rng(0).standard_normal(LEAF, np.float32)
    exact = np.sum(np.square(m, dtype=np.float64))
    small = [jnp.zeros(2)]  # `joined` has to find a leaf to join
    found = jax.jit(products)([jnp.asarray(m), *small], [jnp.asarray(m), *small])[1]
    return float(abs(np.float64(found) - exact) / exact)


def _placed(mesh: Mesh, turn: int, ndim: int) -> NamedSharding:
    # Leading axes by turns with trailing ones: where a leaf is cut decides what flattening gathers.
    axes: list[Any] = [None] * ndim
    axes[0 if turn // 4 % 2 else -1] = "data"
    return NamedSharding(mesh, PartitionSpec(*axes))


def _places(form: Form, params: dict[str, Any], mesh: Mesh) -> Any:
    whole = NamedSharding(mesh, PartitionSpec())
    state = jax.eval_shape(form.transformation.init, params)
    return optax.tree.map_params(
        form.transformation,
        lambda _, x: x.sharding,
        state,
        params,
        transform_non_params=lambda _: whole,
    )
