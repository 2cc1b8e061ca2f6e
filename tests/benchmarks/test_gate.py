"""The decision before training: scores, candidates, choices and their regret."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.digits import data, network
from benchmarks.digits.gate import report, scoring
from benchmarks.digits.gate.report import Choice
from benchmarks.digits.methods import OPTIMIZERS, feature_pair, loss_gradient
from benchmarks.digits.tasks import SAME
from benchmarks.digits.training import with_new_head
from benchmarks.digits.variants import cases, forms

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quickly_compiled")]
DIGITS = data.load()
TARGET = data.task(DIGITS, 0, shots=5).target


def test_scores_by_hand():
    logits = np.log([[[[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]]]])  # one seed, candidate and fold
    labels = np.array([[[0, 2]]])
    brier = (0.5**2 + 2 * 0.25**2 + 0.1**2 + 0.8**2 + 0.9**2) / 2
    np.testing.assert_allclose(scoring.brier_score(logits, labels), [[brier]])


@pytest.mark.parametrize("regularizer", ["L2-SP", "KnowDist"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
def test_a_candidate_updates_like_the_method_of_its_name(optimizer, regularizer):
    batch = jnp.asarray(TARGET.pixels), jnp.asarray(TARGET.labels)
    source, weights = network.init(jax.random.key(5)), (0.5, 2.0)
    start = with_new_head(0, source)
    g = jax.jit(loss_gradient)(start, source, *batch)
    params = jax.tree.map(lambda w, d: w - d, start, g)
    pair = jax.jit(feature_pair)(params, source, *batch)
    gradients = {feature_pair: pair, loss_gradient: pair.loss_grads}
    all_candidates, one = scoring.candidates(weights), scoring.method(optimizer, regularizer)
    methods = {m.name: m for m in forms.methods_of(optimizer, ("plain", "before"))}
    for i, (name, weight) in enumerate(scoring.names(regularizer, weights)):
        candidate = jax.tree.map(lambda leaf, i=i: leaf[i], all_candidates)
        updates = []
        for method, value in ((one, candidate), (methods[name], weight or 0.0)):
            tx = method.optimizer(value)
            updates += tx.update(gradients[method.gradients], tx.init(start), params)[:1]
        for a, b in zip(*map(jax.tree.leaves, updates), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def choice(weight, accuracy, brier):
    case = {"name": "c", "source": "permlab"}
    return Choice(case, "L2-SP", weight, np.array(accuracy, float), np.array(brier, float))


def test_the_lowest_score_is_chosen_and_regret_is_against_the_better_without_dtnh():
    # Two seeds; fine-tuning, plain and DTNH. On average plain is better by a point.
    given = choice(1.0, [[80, 86, 84], [82, 78, 80]], [[0.3, 0.2, 0.1], [0.1, 0.2, 0.3]])
    np.testing.assert_array_equal(given.better, [86, 78])
    found = [report.summary([given], decide)["mean_regret"] for decide in report.DECISIONS.values()]
    assert found == [1, 0, 0, -1, -2]
    is_open = choice(None, [[80, 86, 84, 90, 70]], [[0.5, 0.4, 0.3, 0.2, 0.1]])
    assert is_open.better == 90
    assert [decide(is_open) for decide in report.DECISIONS.values()] == [80, 90, 70, 70, 90]


def test_every_candidate_of_every_seed_is_scored_once(monkeypatch):
    tiny = cases.grid(("SGD",), (16,), (SAME,), (5,), (0.0,), (1.0,), 2, ("plain", "before"))
    whole = scoring.held_out_logits.__wrapped__
    unoptimized = jax.jit(whole, static_argnames=("method", "steps"))
    monkeypatch.setattr(scoring, "held_out_logits", unoptimized)
    found = scoring.scored(tiny)
    assert [s["regularizer"] for s in found["scores"]] == ["L2-SP", "KnowDist"]
    for entry in found["scores"]:
        assert np.shape(entry["brier"]) == (2, 3)
        assert 0 < np.min(entry["brier"]) < np.max(entry["brier"]) < 0.9  # 0.9: knowing nothing
    l2_sp, knowdist = (np.array(s["brier"]) for s in found["scores"])
    np.testing.assert_allclose(l2_sp[:, 0], knowdist[:, 0], rtol=2e-3)  # both fine-tuning
    assert np.abs(l2_sp[:, 1:] - knowdist[:, 1:]).min() > 1e-4
