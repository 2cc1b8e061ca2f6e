"""The KL against torch's `kl_div`, in an environment with torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from optax_dtnh.regularizers import forward_kl, non_target_logits, reverse_kl

Z, Z_S = (x.astype(np.float32) for x in 3 * np.random.default_rng(0).standard_normal((2, 40, 100)))
LABELS, KEEP = np.arange(40) % 100, np.arange(40) % 3 > 0


def of_torch(kl, non_target, t):
    """The value and the gradient; classes that are left out are deleted."""
    z = torch.tensor(Z, requires_grad=True)
    left = (
        torch.tensor(np.arange(100) != LABELS[:, None]) if non_target else torch.ones(40, 100) > 0
    )
    rows = (x[left].reshape(40, -1)[torch.tensor(KEEP)] for x in (z, torch.tensor(Z_S)))
    log_p, log_p_s = (log_softmax(x / t, -1) for x in rows)
    pair = (log_p, log_p_s) if kl is forward_kl else (log_p_s, log_p)
    value = t**2 * kl_div(*pair, reduction="batchmean", log_target=True)
    value.backward()
    return value.item(), z.grad.numpy()


@pytest.mark.parametrize("kl", [forward_kl, reverse_kl])
@pytest.mark.parametrize("non_target", [False, True])
@pytest.mark.parametrize("t", [1.0, 3.0])
def test_values_and_gradients_are_those_of_kl_div(kl, non_target, t):
    form = (lambda z: non_target_logits(z, LABELS)) if non_target else jnp.asarray
    fun = jax.value_and_grad(lambda z: kl(form(z), form(Z_S), where=KEEP, temperature=t))
    value, grads = fun(Z)
    expected, expected_grads = of_torch(kl, non_target, t)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(grads, expected_grads, atol=1e-6)
