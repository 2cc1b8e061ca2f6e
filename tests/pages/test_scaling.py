"""The training loop of docs/scaling.md, run as it stands there."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.pages.pages import blocks, execute

PAGE = "docs/scaling.md"


def test_the_loop_of_the_page_does_on_all_devices_what_it_does_on_one():
    program, _ = blocks(PAGE, "python")
    found = execute(program, PAGE)
    assert found["mesh"].size == jax.device_count() > 1
    assert len(found["x"].sharding.device_set) == jax.device_count()
    x = jnp.ones((4 * jax.device_count(), 4))
    params = {"w": jnp.arange(4.0)}
    expected, _, (loss, reg) = found["step"](params, found["tx"].init(params), x)
    np.testing.assert_allclose(found["params"]["w"], expected["w"], rtol=1e-6)
    np.testing.assert_allclose([found["loss"], found["reg"]], [loss, reg], rtol=1e-6)
    assert np.abs(expected["w"] - params["w"]).max() > 0.01
