"""L2-SP of weights with adapters: half the squared distance to the network without them."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from optax_dtnh._checks import check_floating, check_number
from optax_dtnh._masks import named_leaves
from optax_dtnh._sums import sum_of, widen_all


def lora_l2_sp(
    params: Any,
    *,
    scale: ArrayLike = 1.0,
    names: tuple[str, str] = ("lora_a", "lora_b"),
    stacked: int | None = None,
) -> jax.Array:
    """Return half the squared distance to the network without adapters, `|s A B|^2 / 2`.

    It equals `l2_sp` of the merged weights `W + s A B` and `W`, summed over all pairs of factors,
    but forms neither: `|A B|^2 = sum((A^T A) * (B B^T))` takes products of size rank by rank only.
    While B is 0, as at the start, the value and its gradient are 0.

    A factor is a leaf with a name in its path, alone or after an underscore (`kernel_lora_a`).
    Other leaves are ignored. The names are those of `nnx.LoRA` and qwix: [docs/lora.md](lora.md).

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import lora_l2_sp
      >>> a, b = jnp.array([[1.0], [2.0]]), jnp.array([[3.0, 0.0]])
      >>> lora_l2_sp({"dense": {"lora_a": a, "lora_b": b}}, scale=2.0)
      Array(90., dtype=float32)

    Args:
      params: Tree with the factors, A [layers, in, r] and B [layers, r, out]. `in` and `out` may be
        several axes each; `layers` (of a scan, experts) may be several or none.
      scale: The number `s`: 1 for `nnx.LoRA`, `alpha / rank` for qwix.
      names: The names of A and of B.
      stacked: Number of leading axes that are layers. None reads it from the shapes.

    Returns:
      A float32 scalar (float64 with float64 leaves). Rounding is relative to `|s A|^2 |B|^2`.

    Raises:
      ValueError: There is no pair, a factor is alone, the shapes of a pair do not fit or fit in two
        ways, the rank is above `in` and `out`, `scale` is not finite, or `names` are not two.
      TypeError: A factor is not real floating point.

    Source: Hu et al., [LoRA: Low-Rank Adaptation of Large Language
    Models](https://arxiv.org/abs/2106.09685), 2021, for the adapters; `l2_sp` for the distance.
    """
    check_number("scale", scale, "Pass `alpha / rank` of the adapters.")
    if not (isinstance(names, tuple) and len(names) == len(set(names)) == 2):
        advice = 'Pass that of A and that of B, as in `("lora_a", "lora_b")`.'
        raise ValueError(
            f"`names` should be a tuple of two different names, got {names!r:.60}. {advice}"
        )
    total = sum_of([_squared_norm(*pair, stacked) for pair in _pairs(params, names)])
    return 0.5 * jnp.asarray(scale, total.dtype) ** 2 * total


def _pairs(params: Any, names: tuple[str, str]) -> list[tuple[str, Any, Any]]:
    """Return the path of each A, that A, and its B."""
    nodes = {"/".join(path): jax.tree.leaves(node) for path, node in named_leaves(params)}
    leaves = {path: arrays[0] for path, arrays in nodes.items() if arrays}
    pattern = f"(.*[/_]|)({'|'.join(map(re.escape, names))})(/.*|)"
    found = [match for path in leaves if (match := re.fullmatch(pattern, path))]
    pairs = dict.fromkeys(tuple(x[1] + name + x[3] for name in names) for x in found)
    if not pairs:
        raise ValueError(
            f"`params` should hold factors named {names[0]!r} and {names[1]!r}, got "
            f"{', '.join(leaves) or 'no leaf':.80}. Pass the adapters' tree, or your own `names`."
        )
    for path in (path for pair in pairs for path in pair):
        if path not in leaves:
            raise ValueError(
                f"`params` should hold both factors of a pair, got no {path!r}. Keep both in the "
                "tree, or neither."
            )
        check_floating("params", {path: leaves[path]})
    return [(a, leaves[a], leaves[b]) for a, b in pairs]


def _squared_norm(path: str, a: Any, b: Any, stacked: int | None) -> jax.Array:
    """Return `|A B|^2`, summed over the layers."""
    a, b = widen_all(a, b)
    allowed = [k for k in range(min(a.ndim, b.ndim) - 1) if stacked in (None, k)]
    fits = [k for k in allowed if a.shape[:k] == b.shape[:k] and a.shape[-1] == b.shape[k]]
    # Above `in` and `out` is the rank of a square layer's factors that were swapped.
    above = [k for k in fits if math.prod(a.shape[:k]) * a.shape[-1] ** 2 > max(a.size, b.size)]
    if len(fits) != 1 or above:
        advice = "If they are [r, in] and [out, r], transpose both."
        advice = f"They fit with `stacked` in {fits}: pass one." if len(fits) > 1 else advice
        raise ValueError(
            f"`params` should hold A [layers, in, r] and B [layers, r, out], got {a.shape} and "
            f"{b.shape} at {path!r}. {advice}"
        )
    k = fits[0]
    return jnp.sum(_products(a, range(k, a.ndim - 1), k) * _products(b, range(k + 1, b.ndim), k))


def _products(x: jax.Array, axes: range, layers: int) -> jax.Array:
    """Return the inner products over `axes`, rank by rank for each layer."""
    mesh = jax.typeof(x).sharding.mesh
    # Explicit sharding asks where a sum over a sharded axis goes. It is small: to every device.
    out = None if mesh.empty else NamedSharding(mesh, PartitionSpec())
    dims = (tuple(axes), tuple(axes)), (tuple(range(layers)), tuple(range(layers)))
    return jax.lax.dot_general(x, x, dims, precision="highest", out_sharding=out)
