"""Masks by the names of the parameters, a mask in words, and the paths that both read."""

import difflib
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np
from jax.tree_util import all_leaves, keystr

from optax_dtnh._checks import described
from optax_dtnh._select import Tree, TreeOrFn, is_masked, resolve_mask

LINES = 38


def all_but(*names: str) -> Callable[[Tree], Tree]:
    """Return a mask function that is False for the leaves with these names, and True elsewhere.

    A name matches a whole part of a leaf's path: a key, an attribute or an index. It may be a
    pattern, `"Dense_*"`, or consecutive parts, `"mlp/bias"`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import all_but
      >>> all_but("head")({"multi_head": jnp.ones(2), "head": {"bias": jnp.ones(2)}})
      {'head': {'bias': False}, 'multi_head': True}

    Args:
      names: What is left out, such as the new head.

    Returns:
      A function from a tree to one of booleans. A name that matches no path is a `ValueError`.
    """
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError(
            f"`names` should be one or more strings, got {names!r:.60}. Pass each name by itself, "
            'as in `all_but("head", "bias")`.'
        )

    def one(path, node):
        keep = not any(_matches(name, parts(path)) for name in names)
        return jax.tree.map(lambda _: keep, node)

    def mask(tree):
        _check_names(names, tree)
        return jax.tree.map_with_path(one, tree, is_leaf=is_named)

    return mask


def describe_mask(params: Tree, mask: TreeOrFn) -> str:
    """Say in at most 40 lines which parameters a mask leaves out, and which are in.

    Leaves whose paths differ in their numbers alone share a line, with `*` for a number.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import all_but, describe_mask
      >>> params = {"layer0": jnp.ones((8, 4)), "layer1": jnp.ones(4), "head": jnp.ones((4, 2))}
      >>> print(describe_mask(params, all_but("head")))
      36 of 44 parameters are regularized (81.8%)
        out  head: 8
        in   layer*: 36 in 2 leaves

    Args:
      params: The parameters, `nnx.Param`s in Flax NNX, or their shapes as from `jax.eval_shape`.
      mask: As in `dtnh`, like the errors.
    """
    check_variables(params)
    groups, sizes = defaultdict(list), {"out": 0, "in": 0}
    pairs = zip(*map(named_leaves, (params, resolve_mask(mask)(params))), strict=True)
    for (path, node), (_, kept) in pairs:
        kind, name = "in" if all(jax.tree.leaves(kept)) else "out", "/".join(path)
        size = sum(np.size(x) for x in jax.tree.leaves(node))
        groups[kind, re.sub(r"\d+", "*", name)].append((name, size))
        sizes[kind] += size
    lines = [_line(kind, name, group) for (kind, name), group in groups.items()]
    lines.sort(key=lambda line: not line.startswith("  out"))
    more = [f"  and {len(lines) - LINES} lines more"] if len(lines) > LINES else []
    inside, total = sizes["in"], sum(sizes.values())
    first = f"{inside:,} of {total:,} parameters are regularized ({inside / max(total, 1):.1%})"
    return "\n".join([first, *lines[:LINES], *more])


def _line(kind: str, name: str, group: list[tuple[str, int]]) -> str:
    if len(group) == 1:
        return f"  {kind:3}  {group[0][0]}: {group[0][1]:,}"
    return f"  {kind:3}  {name}: {sum(size for _, size in group):,} in {len(group)} leaves"


def _check_names(names: tuple[str, ...], tree: Tree) -> None:
    if all_leaves([tree]) and tree is not None:
        raise TypeError(
            f"`names` should be looked for in a tree, got {described(tree)}. Name `mask` in the "
            "`static_args` of `optax.inject_hyperparams`, which calls other functions with the "
            "step count; put `optax.flatten` around the optimizer that follows."
        )
    paths = [path for path, _ in named_leaves(tree)]
    known = list(dict.fromkeys(part for path in paths for part in path))
    for name in names:
        # A tree without any leaf is a stand-in, as that of `optax.tree.map_params`.
        if paths and not any(_matches(name, path) for path in paths):
            near = difflib.get_close_matches(name.split("/")[-1], known, 3) or known[:8]
            raise ValueError(
                f"`names` should each match a part of some path, got {name!r}, which matches none. "
                f"Pass parts of the paths, such as {', '.join(map(repr, near)):.160}."
            )


def _matches(name: str, path: tuple[str, ...]) -> bool:
    """Return whether consecutive parts of the path match those of the name."""
    patterns = name.strip("/").split("/")
    windows = [path[i : i + len(patterns)] for i in range(len(path) - len(patterns) + 1)]
    return any(all(map(fnmatchcase, window, patterns)) for window in windows)


# --- paths


def parts(path: Any) -> tuple[str, ...]:
    """Return the parts of a path: keys, attributes and indices; a "/" in a key separates two."""
    return tuple(keystr(path, simple=True, separator="/").split("/")) if path else ()


def is_variable(node: Any, kind: str = "Variable") -> bool:
    """Return whether `node` is a variable of Flax NNX, of this kind."""
    nnx = sys.modules.get("flax.nnx")  # without it there is no variable, and no need to import it
    return nnx is not None and isinstance(node, getattr(nnx, kind))


def check_variables(params: Any) -> None:
    """Raise if `params` hold variables of Flax NNX, as batch statistics, that are no parameters."""
    for path, node in named_leaves(params):
        if is_variable(node) and not is_variable(node, "Param"):
            raise TypeError(
                f"`params` should hold variables of type `nnx.Param` alone, got "
                f"{type(node).__name__} at {'/'.join(path)}. Pass those of `nnx.split(model, "
                "nnx.Param, ...)`, and merge inside `fun` as in docs/training_loops.md. Derive a "
                "type of your own that is trained from `nnx.Param`."
            )


def is_named(node: Any) -> bool:
    """Return whether a path should end at `node`, a leaf, a variable or what was put for one.

    None and `optax.MaskedNode` stand for leaves that a filter or a wrapper took out.
    """
    return node is None or is_masked(node) or is_variable(node)


def named_leaves(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Return the parts of every path to a leaf, a variable or what was put for one, and that."""
    return [(parts(p), node) for p, node in jax.tree.leaves_with_path(tree, is_leaf=is_named)]
