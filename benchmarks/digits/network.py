"""A small network with a narrow bottleneck: 64-128-16 and a linear head.

The bottleneck is what makes a bad source costly: 16 features cannot hold both what the source
wants and what the target needs. Every function takes one image; batch it with `jax.vmap`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

Params = Any  # {layer: {"kernel": [in, out], "bias": [out]}}

WIDTHS = {"fc1": (64, 128), "fc2": (128, 16), "head": (16, 10)}
# Masks, as prefixes of the parameters: the head is new and has no pretrained place to stay near.
BACKBONE = {"fc1": True, "fc2": True, "head": False}
HEAD = {"fc1": False, "fc2": False, "head": True}


def init(key: jax.Array) -> Params:
    """Return a random backbone (He) and head."""
    keys = dict(zip(WIDTHS, jax.random.split(key, len(WIDTHS)), strict=True))
    backbone = {name: _dense(keys[name], name, gain=math.sqrt(2)) for name in ("fc1", "fc2")}
    return {**backbone, "head": init_head(keys["head"])}


def init_head(key: jax.Array) -> dict[str, jax.Array]:
    """Return a new head, normal with standard deviation `0.3 / sqrt(d)`."""
    return _dense(key, "head", gain=0.3)


def features(params: Params, pixels: jax.Array) -> jax.Array:
    """Return the 16 features that the head reads, from 64 pixels."""
    return jax.nn.relu(_layer_norm(_affine(params["fc2"], hidden(params, pixels))))


def hidden(params: Params, pixels: jax.Array) -> jax.Array:
    """Return the 128 hidden units that the second layer reads."""
    return jax.nn.relu(_layer_norm(_affine(params["fc1"], pixels)))


def classify(params: Params, features: jax.Array) -> jax.Array:
    """Return the 10 logits of 16 features."""
    return _affine(params["head"], features)


def _dense(key: jax.Array, name: str, gain: float) -> dict[str, jax.Array]:
    d, out = WIDTHS[name]
    kernel = gain / math.sqrt(d) * jax.random.normal(key, (d, out))
    return {"kernel": kernel, "bias": jnp.zeros(out)}


def _affine(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]


def _layer_norm(x: jax.Array) -> jax.Array:
    # Without scale and shift: with them the regularizers would have a second way to act.
    return jax.nn.standardize(x)
