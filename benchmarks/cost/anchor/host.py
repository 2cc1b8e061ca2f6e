"""The anchor of `add_l2_sp` in the host's memory, as a user writes it: with no help of the library.

The anchor is an argument of its own, which the step reads and does not return: parameters and state
can be donated, and no version of jax has to keep the memory kind of what a compiled program
returns.
"""

from typing import Any, NamedTuple

import jax
import optax

from optax_dtnh import add_l2_sp


class HostAnchor(NamedTuple):
    """A chain that begins with `add_l2_sp`, and how it is used with its anchor apart."""

    transformation: optax.GradientTransformation

    def init(self, params: Any) -> tuple[Any, Any]:
        """Return the state without the anchor, and the anchor in the host's memory."""
        state: Any = self.transformation.init(params)
        there = jax.tree.map(lambda x: x.sharding.with_memory_kind("pinned_host"), state[0].anchor)
        return with_anchor(state, None), jax.device_put(state[0].anchor, there)

    def update(self, grads: Any, state: Any, anchor: Any, params: Any) -> tuple[Any, Any]:
        """Return updates and state; under `jit`, the anchor is fetched to the device."""
        here = jax.device_put(anchor, jax.memory.Space.Device)
        updates, state = self.transformation.update(grads, with_anchor(state, here), params)
        return updates, with_anchor(state, None)


def with_anchor(state: Any, anchor: Any) -> Any:
    """Return the state of a chain that begins with `add_l2_sp`, with `anchor` as its anchor."""
    return (state[0]._replace(anchor=anchor), *state[1:])


def l2_sp_and_adam(weight: float, **options: Any) -> optax.GradientTransformation:
    """Return the chain that is measured."""
    return optax.chain(add_l2_sp(weight, **options), optax.adam(1e-4))
