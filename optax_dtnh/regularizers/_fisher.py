"""The diagonal of the Fisher information: how much each parameter matters to the predictions."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from optax_dtnh._checks import check_floating, check_function
from optax_dtnh._masks import check_variables
from optax_dtnh._sums import widen
from optax_dtnh.regularizers._checks import as_scalar

SUM = "It gets one example, without the axis of the batch: sum what is left, as over tokens."


def diagonal_fisher(
    log_prob: Callable[..., jax.Array],
    params: Any,
    batches: Iterable[Any],
    *,
    key: jax.Array | None = None,
) -> Any:
    """Return the mean over examples of the squared gradient of the log-probability.

        F = mean of (grad log p(label | input; w))^2, element by element

    This is the `importance` of `add_l2_sp`, for elastic weight consolidation (EWC). Estimate it at
    the pretrained parameters, on the data of the pretraining. The label decides what `F` is:

    - drawn from the model with `key`: the diagonal of the Fisher information, the curvature of the
      divergence between the predictions. Draw it behind `jax.lax.stop_gradient`;
    - that of the data: the empirical Fisher information, small where the model fits the data.

    `F` is not normalized: [docs/regularizers.md](regularizers.md#ewc) brings it to the scale of
    L2-SP. The examples run one after the other, compiled once for each shape of a batch.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from optax_dtnh.regularizers import diagonal_fisher
      >>> log_prob = lambda w, example: -((example["y"] - w @ example["x"]) ** 2) / 2
      >>> batch = {"x": jnp.array([[1.0, 2.0], [3.0, 0.0]]), "y": jnp.array([1.0, -1.0])}
      >>> diagonal_fisher(log_prob, jnp.zeros(2), [batch])
      Array([5., 2.], dtype=float32)

    Args:
      log_prob: `log_prob(params, example) -> scalar`, or `log_prob(params, example, key)` with
        `key`; the loss of one example, its negative, gives the same. `example` is a row of a batch,
        without the leading axis. Run batch normalization and dropout in evaluation mode.
      params: Tree of parameters, real floating-point leaves.
      batches: Iterable of batches of any size, trees of arrays with a leading axis in common.
      key: Random key. `log_prob` gets one for each example, however these are cut into batches.

    Returns:
      A tree like `params`, float32 (float64 for float64 leaves).

    Raises:
      ValueError: There is no example, or no leading axis in common; `log_prob` gives no scalar.
      TypeError: `params` are refused as in `value_and_grad_pair`; `key` is no random key.

    Source: Kirkpatrick et al., [Overcoming catastrophic forgetting in neural
    networks](https://arxiv.org/abs/1612.00796), 2017. On the two kinds of labels: Kunstner et al.,
    [Limitations of the Empirical Fisher Approximation](https://arxiv.org/abs/1905.12558), 2019.
    """
    check_function("log_prob", log_prob)
    check_variables(params)
    check_floating("params", params)
    try:
        if key is not None:
            jax.random.fold_in(key, 0)
    except (TypeError, ValueError) as error:
        got = getattr(key, "shape", key)
        message = f"`key` should be one random key, got {got!r:.60}. Pass `jax.random.key(0)`."
        raise TypeError(message) from error

    def value(params, example, *keys):
        return as_scalar("log_prob", log_prob(params, example, *keys), SUM)

    def add_example(params, total, numbered):
        i, example = numbered
        keys = () if key is None else (jax.random.fold_in(key, i),)
        g = jax.grad(value)(params, example, *keys)
        return jax.tree.map(lambda t, x: t + widen(x) ** 2, total, g), None

    @partial(jax.jit, donate_argnums=0)
    def add(total, params, batch, numbers):
        return jax.lax.scan(partial(add_example, params), total, (numbers, batch))[0]

    total, count = jax.tree.map(lambda w: jnp.zeros_like(widen(w)), params), 0
    for batch in batches:
        size = _size(batch)
        total = add(total, params, batch, jnp.arange(count, count + size))
        count += size
    if not count:
        raise ValueError(
            "`batches` should hold at least one example, got none. Pass an iterable that is not "
            "used up, such as a list of batches."
        )
    return jax.tree.map(lambda t: t / count, total)


def _size(batch: Any) -> int:
    """Return the number of examples in a batch."""
    lengths = [jnp.shape(x)[:1] for x in jax.tree.leaves(batch)]
    if len(set(lengths)) != 1 or lengths[0] == ():
        raise ValueError(
            "`batches` should yield trees of arrays with a leading axis in common, the examples, "
            f"got lengths {lengths}. Pass a list of batches, one batch as `[batch]`."
        )
    return lengths[0][0]
