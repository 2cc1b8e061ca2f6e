"""Trees that hold only the leaves inside a mask, as an anchor or an average in a state does."""

from typing import Any

import jax
import optax

from optax_dtnh._checks import check_like


def filled(name: str, tree: Any, like_name: str, like: Any) -> tuple[Any, Any]:
    """Return `tree` with the leaves of `like` in place of `optax.MaskedNode`s, and what it held.

    The second tree is True for the leaves of `tree`, False for what came from `like`.
    """
    leaves = dict(jax.tree.leaves_with_path(like))
    full = jax.tree.map_with_path(
        lambda path, x: leaves.get(path, x) if _is_left_out(x) else x, tree, is_leaf=_is_left_out
    )
    check_like(name, full, like_name, like)
    return full, jax.tree.map(lambda x: not _is_left_out(x), tree, is_leaf=_is_left_out)


def _is_left_out(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
