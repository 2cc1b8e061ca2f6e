"""The KL against torch's `kl_div`, in an environment with torch."""

import jax
import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from optax_dtnh.regularizers import forward_kl, non_target_logits, reverse_kl

Z, Z_S = np.float32(3 * np.random.default_rng(0).standard_normal((2, 40, 100)))
LABELS, KEEP = np.arange(40) % 100, np.arange(40) % 3 > 0


@pytest.mark.parametrize("kl", [forward_kl, reverse_kl])
@pytest.mark.parametrize("t", [1.0, 3.0])
@pytest.mark.parametrize("labels", [LABELS, LABELS - 200], ids=["without the target", "with it"])
def test_values_and_gradients_are_those_of_kl_div(kl, t, labels):
    def ours(z):
        z, z_s = (non_target_logits(x, labels) for x in (z, Z_S))
        return kl(z, z_s, where=KEEP, temperature=t)

    z = torch.tensor(Z, requires_grad=True)
    left = torch.tensor(np.arange(100) != labels[:, None])
    rows = (x[left].reshape(40, -1)[KEEP] for x in (z, torch.tensor(Z_S)))
    log_p, log_p_s = (log_softmax(x / t, -1) for x in rows)
    pair = (log_p, log_p_s) if kl is forward_kl else (log_p_s, log_p)
    theirs = t**2 * kl_div(*pair, reduction="batchmean", log_target=True)
    theirs.backward()
    value, grads = jax.value_and_grad(ours)(Z)
    assert float(value) == pytest.approx(theirs.item(), rel=1e-5)
    np.testing.assert_allclose(grads, z.grad.numpy(), atol=1e-6)
