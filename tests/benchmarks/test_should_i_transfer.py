"""The decision before training: folds, candidates, the closed form, choices and their regret."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.digits import data, network
from benchmarks.digits.__main__ import SAME
from benchmarks.digits.gate import __main__ as should_i_transfer
from benchmarks.digits.gate import (
    candidates,
    choice,
    cross_validation,
    leave_one_out,
    report,
    scoring,
)
from benchmarks.digits.gate.choice import Place, Question
from benchmarks.digits.head import l2_sp_pair
from benchmarks.digits.methods import feature_pair, loss_gradient
from benchmarks.digits.training import with_new_head
from benchmarks.digits.variants import cases, forms
from benchmarks.digits.variants.forms import FORMS, OPTIMIZERS, RECIPE
from benchmarks.harness import record

DIGITS = data.load()
TARGET = data.task(DIGITS, 0, shots=5).target


@pytest.fixture(scope="module", autouse=True)
def quick_to_compile():
    """Two seeds run faster than their programs are optimized."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)


@pytest.fixture(scope="module")
def source():
    return network.init(jax.random.key(5))


# Folds


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_every_image_is_held_out_once_and_never_learned_in_the_same_fold(noise):
    labels = data.redraw_labels(TARGET, noise, 0).labels
    folds = cross_validation.folds_of(labels, 0, folds=5, steps=10, batch=16)
    np.testing.assert_array_equal(np.sort(folds.held_out.ravel()), np.arange(50))
    for learned, held_out in zip(folds.learned, folds.held_out, strict=True):
        assert sorted([*learned, *held_out]) == list(range(50))
    assert folds.batches is not None
    assert folds.batches.shape == (5, 10, 16)
    assert folds.batches.min() >= 0
    assert folds.batches.max() < 40


def test_every_fold_holds_out_the_same_number_of_every_label():
    folds = cross_validation.folds_of(TARGET.labels, 0, folds=5, steps=10, batch=None)
    for held_out in folds.held_out:
        np.testing.assert_array_equal(np.bincount(TARGET.labels[held_out]), np.ones(10))


def test_another_seed_gives_other_folds():
    one, other = (cross_validation.folds_of(TARGET.labels, s, 5, 10, None) for s in (0, 1))
    assert not np.array_equal(one.held_out, other.held_out)


def test_folds_of_different_size_are_refused():
    with pytest.raises(ValueError, match="should divide the number of images, 50, got 7"):
        cross_validation.folds_of(TARGET.labels, 0, folds=7, steps=10, batch=None)


def test_scores_by_hand():
    logits = np.log([[[[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]]]])  # one seed, candidate and fold
    labels = np.array([[[0, 2]]])
    by_loss = cross_validation.cross_entropy(logits, labels)
    np.testing.assert_allclose(by_loss, [[-(np.log(0.5) + np.log(0.1)) / 2]])
    brier = (0.5**2 + 2 * 0.25**2 + 0.1**2 + 0.8**2 + 0.9**2) / 2
    np.testing.assert_allclose(cross_validation.brier_score(logits, labels), [[brier]])


# Candidates


@pytest.mark.parametrize("regularizer", ["L2-SP", "KnowDist"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
def test_a_candidate_updates_like_the_method_of_its_name(optimizer, regularizer, source):
    x, y = jnp.asarray(TARGET.pixels), jnp.asarray(TARGET.labels)
    start = with_new_head(0, source)
    downhill, pair = jax.jit(loss_gradient), jax.jit(feature_pair)
    params = jax.tree.map(lambda w, d: w - d, start, downhill(start, source, x, y))
    gradients = {feature_pair: pair(params, source, x, y)}
    gradients[loss_gradient] = gradients[feature_pair].loss_grads
    weights = (0.5, 2.0)
    all_candidates, one = candidates.candidates(weights), candidates.method(optimizer, regularizer)
    methods = {m.name: m for m in forms.methods_of(optimizer, FORMS[:2])}
    for i, (name, weight) in enumerate(candidates.names(regularizer, weights)):
        candidate = jax.tree.map(lambda leaf, i=i: leaf[i], all_candidates)
        optimizers = one.optimizer(candidate), methods[name].optimizer(weight or 0.0)
        assert methods[name].gradients in (one.gradients, loss_gradient)
        updates = []
        for tx, method in zip(optimizers, (one, methods[name]), strict=True):
            updates.append(tx.update(gradients[method.gradients], tx.init(start), params)[0])
        for a, b in zip(*map(jax.tree.leaves, updates), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


# The closed form


@pytest.fixture(scope="module")
def kernel_and_labels():
    x = np.random.default_rng(0).normal(size=(12, 4))
    return x @ x.T, np.eye(3)[np.arange(12) % 3]


def test_leave_one_out_is_that_of_twelve_regressions(kernel_and_labels):
    k, y = kernel_and_labels
    residuals = []
    for i in range(12):
        rest = np.delete(np.arange(12), i)
        dual = np.linalg.solve(k[np.ix_(rest, rest)] + 12 * np.eye(11), y[rest])
        residuals.append(y[i] - k[i, rest] @ dual)
    expected = np.mean(np.sum(np.square(residuals), axis=1))
    found = leave_one_out.leave_one_out(jnp.asarray(k), jnp.asarray(y))
    assert float(found) == pytest.approx(expected, rel=1e-4)
    in_sample = np.linalg.solve(k + 12 * np.eye(12), y) * 12
    assert np.mean(np.sum(in_sample**2, axis=1)) < 0.95 * expected  # else the test says nothing


def test_held_features_are_conditioned_on_not_moving(kernel_and_labels):
    products, n, features, weight = kernel_and_labels[0], 12, 16, 3.0
    k, v = products / (features * leave_one_out.HOLD), n * features / (2 * weight)
    expected = features * (k - k @ np.linalg.solve(k + v * np.eye(n), k))
    found = leave_one_out.held_features(jnp.asarray(products), jnp.asarray(weight), features)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("held", [leave_one_out.held_weights, leave_one_out.held_features])
def test_at_weight_zero_the_regularizers_are_fine_tuning(held, kernel_and_labels):
    products = jnp.asarray(kernel_and_labels[0])
    free = products / leave_one_out.HOLD
    np.testing.assert_allclose(held(products, jnp.zeros([]), 16), free, rtol=1e-5)


def test_the_products_are_those_of_the_whole_jacobian(source):
    pixels = jnp.asarray(TARGET.pixels[:3])
    backbone = {name: source[name] for name in ("fc1", "fc2")}
    jacobian = jax.jit(jax.vmap(jax.jacrev(network.features), (None, 0)))(backbone, pixels)
    flat = np.concatenate([leaf.reshape(3, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
    _, products = jax.jit(leave_one_out.features_and_products)(source, pixels)
    np.testing.assert_allclose(products, flat @ flat.T, rtol=1e-4)


def test_hold_is_one_over_the_sum_of_the_learning_rates():
    schedule = optax.cosine_decay_schedule(RECIPE.learning_rate, RECIPE.steps)
    total = sum(float(schedule(i)) for i in range(RECIPE.steps)) / (1 - RECIPE.momentum)
    assert pytest.approx(1 / total, rel=0.01) == leave_one_out.HOLD


# Choices


def place(accuracy, brier):
    case = {"name": "c", "source": "permlab"}
    return Place(case, "L2-SP", np.array(accuracy, float), {"brier": np.array(brier, float)})


# Two seeds; fine-tuning, plain and DTNH at one weight. On average plain is better by a point.
ONE = place([[80, 86, 84], [82, 78, 80]], [[0.3, 0.2, 0.1], [0.1, 0.2, 0.3]])


def test_regret_is_against_the_better_mean_of_the_two_without_dtnh():
    given, _ = choice.questions(ONE, [1.0])
    np.testing.assert_array_equal(given.better, [86, 78])
    fine, plain, dtnh = (choice.always(k) for k in ("fine-tuning", "plain", "DTNH"))
    regrets = [choice.regret(given, d).mean for d in (fine, plain, dtnh)]
    assert regrets == [1, 0, 0]


def test_the_lowest_score_is_chosen_seed_by_seed():
    given, _ = choice.questions(ONE, [1.0])
    np.testing.assert_array_equal(choice.lowest("brier")(given), [84, 82])
    np.testing.assert_array_equal(choice.lowest("brier", with_dtnh=False)(given), [86, 82])
    assert choice.regret(given, choice.lowest("brier", with_dtnh=False)).mean == -2


def test_with_the_weight_open_all_candidates_are_chosen_among():
    accuracy = [[80, 86, 84, 90, 70], [80, 86, 84, 90, 70]]
    two = place(accuracy, [[0.5, 0.4, 0.3, 0.2, 0.1]] * 2)
    *given, is_open = choice.questions(two, [1.0, 10.0])
    assert [tuple(q.columns) for q in given] == [(0, 1, 2), (0, 3, 4)]
    np.testing.assert_array_equal(is_open.better, [90, 90])
    np.testing.assert_array_equal(choice.lowest("brier")(is_open), [70, 70])
    np.testing.assert_array_equal(choice.lowest("brier", with_dtnh=False)(is_open), [90, 90])


def test_the_cost_is_that_of_the_short_trainings():
    settings = scoring.SETTINGS
    one = settings.folds * settings.steps / 150
    assert report.cost(report.MAIN, "given", 3) == pytest.approx(3 * one)
    assert report.cost(report.MAIN, "open", 3) == pytest.approx(7 * one)
    assert report.cost(f"{report.MAIN}, without DTNH", "given", 3) == pytest.approx(2 * one)
    assert report.cost("always plain", "given", 3) == 0


def test_a_candidate_that_diverged_is_not_chosen():
    entry = {
        "brier": [[0.2, None, 0.3]],
        "cross_entropy": [[1.0, None, 2.0]],
        "leave_one_out": [[0.5, 0.4]],
    }
    scores = report.scores_of(entry, slice(None))
    asked = Question(place([[1, 2, 3]], [[0, 0, 0]])._replace(scores=scores), (0, 1, 2), 1.0)
    np.testing.assert_array_equal(choice.lowest("brier")(asked), [1])
    np.testing.assert_array_equal(choice.lowest("leave_one_out", with_dtnh=False)(asked), [2])


# The whole benchmark, small

TINY = cases.grid(("SGD",), (16,), (SAME,), (5,), (0.0,), (1.0,), 2, FORMS[:2])


def records():
    """Records of the grid as `benchmarks.digits.variants` writes them, with numbers made up."""
    (case,) = TINY.cases
    methods = [m.name for m in TINY.methods["SGD"]]
    return {
        "environment": {"commit": "made up"},
        "cases": [cases.described(case)],
        "weights": [1.0],
        "test_images": 600,
        "runs": [
            {"case": case.name, "method": m, "correct": [[500 + i, 510 + i]]}
            for i, m in enumerate(methods)
        ],
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("decision")
    (out / "sources").mkdir()
    record.write(out / "variants.json", records())
    whole = cross_validation.held_out_logits
    with pytest.MonkeyPatch.context() as patch:
        unoptimized = jax.jit(whole.__wrapped__, static_argnames=("method", "steps"))
        patch.setattr(cross_validation, "held_out_logits", unoptimized)
        patch.setattr(should_i_transfer, "WHOLE", TINY)
        patch.setattr(report, "PARTS", (report.Part("all", slice(None), ("same",)),) * 3)
        should_i_transfer.main(["--variants", str(out / "variants.json"), "--out", str(out)])
    return out, record.read(out / "should_i_transfer.json")


def test_a_run_scores_every_candidate_of_every_seed(finished):
    out, results = finished
    assert [s["regularizer"] for s in results["scores"]] == ["L2-SP", "KnowDist"]
    for entry in results["scores"]:
        assert np.shape(entry["brier"]) == np.shape(entry["cross_entropy"]) == (2, 3)
        assert np.shape(entry["leave_one_out"]) == (2, 2)
        assert 0 < np.min(entry["brier"]) < np.max(entry["brier"]) < 0.9  # 0.9: knowing nothing
    assert "## Where cross-validation fails" in (out / "should_i_transfer.md").read_text()
    assert str(out) not in json.dumps(results)


def test_fine_tuning_has_the_same_score_next_to_every_regularizer(finished):
    _, results = finished
    l2_sp, knowdist = (np.array(s["brier"]) for s in results["scores"])
    np.testing.assert_allclose(l2_sp[:, 0], knowdist[:, 0], rtol=2e-3)
    assert np.abs(l2_sp[:, 1:] - knowdist[:, 1:]).min() > 1e-4


def test_scores_that_are_there_are_not_computed_again(finished, monkeypatch):
    out, results = finished
    monkeypatch.setattr(scoring, "run", lambda *_: pytest.fail("scored again"))
    assert scoring.scored(TINY, out)["scores"] == results["scores"]


def test_without_records_the_command_says_what_to_run(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(should_i_transfer, "WHOLE", TINY)
    out = str(finished[0])
    with pytest.raises(SystemExit):
        should_i_transfer.main(["--variants", str(tmp_path / "none.json"), "--out", out])
    assert "should be the JSON of `benchmarks.digits.variants`" in capsys.readouterr().err


def test_gradients_of_both_regularizers_are_what_the_candidates_train_with():
    made = [candidates.method(OPTIMIZERS[0], r).gradients for r in ("L2-SP", "KnowDist")]
    assert made == [loss_gradient, feature_pair]
    assert forms.PAIRS == {"L2-SP": l2_sp_pair, "KnowDist": feature_pair}
