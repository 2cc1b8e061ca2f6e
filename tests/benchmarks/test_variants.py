"""The forms: what each does to a step, shared batches, resuming, regret."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from benchmarks.digits import data, methods, mini_batches, network
from benchmarks.digits.methods import FINE_TUNING, SGD, loss_gradient
from benchmarks.digits.tasks import SAME
from benchmarks.digits.training import with_new_head
from benchmarks.digits.variants import analysis, cases, forms, runs, training
from benchmarks.harness import record
from optax_dtnh.finetune.errors import UsageError

pytestmark = pytest.mark.slow
DIGITS = data.load()
WEIGHT = 3.0


@pytest.fixture(scope="module", autouse=True)
def fast_to_compile(quickly_compiled):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "COMPILER_OPTIONS", {})
        yield


@pytest.fixture(scope="module")
def source():
    return network.init(jax.random.key(5))


@pytest.mark.parametrize("regularizer", methods.PAIRS)
def test_no_two_forms_update_alike_and_at_weight_zero_only_fine_tuning_differs(regularizer, source):
    """What each form does is tested with the command, which builds from the same table."""
    target = data.task(DIGITS, 0, shots=5, test_size=600).target
    batches = [(jnp.asarray(target.pixels[i::3]), jnp.asarray(target.labels[i::3])) for i in (0, 1)]
    pair, w, path = jax.jit(methods.PAIRS[regularizer]), with_new_head(0, source), []
    for batch in batches:
        w = jax.tree.map(lambda w, d: w - 0.3 * d, w, pair(w, source, *batch).loss_grads)
        path.append((w, pair(w, source, *batch)))

    def last(method, weight):
        tx = method.optimizer(weight)
        state = tx.init(source)  # what L2-SP is pulled to
        for w, grads in path:
            given = grads.loss_grads if method.gradients is loss_gradient else grads
            updates, state = tx.update(given, state, w)
        return np.asarray(ravel_pytree(updates)[0])

    chosen = [method for method in forms.methods_of(SGD) if method.regularizer == regularizer]
    pulled = [last(method, WEIGHT) for method in chosen]
    assert len(chosen) == len(forms.VARIANTS) - 1  # the metric is Adam's
    for a, b in itertools.combinations(pulled, 2):
        assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()
    for method in chosen[1:]:
        np.testing.assert_allclose(last(method, 0.0), last(chosen[0], 0.0), rtol=1e-4, atol=1e-7)


# Batches and the head come from the seed


def test_batches_depend_on_the_seed_and_take_every_image_once_an_epoch():
    batches, again, other = (mini_batches.draw(s, 50, steps=25, size=16) for s in (3, 3, 4))
    assert np.array_equal(batches, again)
    assert not np.array_equal(batches, other)
    for epoch in batches.ravel().reshape(8, 50):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(50))
    target = data.Images(np.arange(6.0).reshape(1, 3, 2), np.arange(3)[None])
    more = mini_batches.repeated(target, 4)  # every image and label as often, side by side
    assert more.labels.tolist() == [[0, 1, 2] * 4]
    np.testing.assert_array_equal(more.pixels[0], target.pixels[0][more.labels[0]])


TINY = cases.grid(("SGD",), (16,), (SAME,), (5,), (0.0,), (1.0, 10.0), 2, ("plain", "before"))


@pytest.fixture(scope="module")
def outcome():
    tasks = cases.tasks_of(TINY, DIGITS)[5, 0.0]
    networks = jax.vmap(lambda s: network.init(jax.random.key(s)))(np.arange(2))

    def outcome(program, weights, seeds, batches):
        return program(np.array(weights, np.float32), seeds, networks, tasks, batches)

    return outcome


def test_methods_of_one_seed_share_batches_and_head(outcome):
    """At weight 0 they are one method, and give the same loss to rounding."""
    batches = mini_batches.draw_all(2, 50, 10, 16)
    both = [training.program(forms.method(SGD, "L2-SP", form), 10) for form in ("plain", "before")]
    plain, before = (outcome(program, [0.0], np.arange(2), batches) for program in both)
    np.testing.assert_allclose(plain.training_loss, before.training_loss, rtol=1e-5)
    other_head = outcome(both[0], [0.0], np.arange(2) + 7, batches)
    other_batches = outcome(both[0], [0.0], np.arange(2), batches[::-1])
    for other in (other_head, other_batches):
        assert np.abs(np.asarray(other.training_loss - plain.training_loss)).min() > 1e-4


# The whole benchmark, small, and killed


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("variants")
    return out, runs.run(TINY, out / "runs.jsonl")


def test_a_killed_run_trains_what_is_missing_but_not_with_other_settings_or_versions(
    finished, tmp_path, monkeypatch
):
    trained, program, file = [], training.program, tmp_path / "runs.jsonl"

    def counted(method):
        compiled = program(method)
        return lambda *args: trained.append(method.name) or compiled(*args)

    whole = (finished[0] / "runs.jsonl").read_text().splitlines(keepends=True)
    file.write_text("".join(whole[:5]) + whole[5][:20])
    with pytest.raises(UsageError, match="got one with other weights"):
        runs.run(TINY._replace(weights=(2.0,)), file)
    with monkeypatch.context() as patch:
        patch.setattr(record, "environment", lambda: {"jax": "another"})
        with pytest.raises(UsageError, match="got one with other environment"):
            runs.run(TINY, file)
    monkeypatch.setattr(training, "program", counted)
    assert runs.run(TINY, finished[0] / "runs.jsonl") == finished[1]
    assert trained == []
    assert runs.run(TINY, file) == finished[1]
    assert len(trained) == 1  # the one whose line was torn


# Regret


def results_of(by_method):
    """Results of one case, from correct answers of 100 by seed."""
    case = {"name": "c", "optimizer": "SGD", "batch": 16, "source": "rot90", "shots": 5, "noise": 0}
    return {
        "cases": [case],
        "methods": {"SGD": list(by_method)},
        "weights": [1.0],
        "seeds": [0, 1, 2],
        "test_images": 100,
        "runs": [
            {"case": "c", "method": m, "correct": [x], "training_loss": [0.5], "descent": [0.75]}
            for m, x in by_method.items()
        ],
    }


HURT = {
    "L2-SP, plain": [60, 61, 62],
    "L2-SP, before": [70, 71, 73],
    "L2-SP, drop": [76, 76, 79],
    FINE_TUNING: [80, 81, 82],
}


def test_regret_is_against_the_better_of_fine_tuning_and_the_plain_regularizer():
    by_form = {c.form: c for c in analysis.cells(results_of(HURT))}
    assert by_form["before"].regret.mean == pytest.approx((10 + 10 + 9) / 3)
    assert (by_form["plain"].regret.mean, by_form[FINE_TUNING].regret.mean) == (20, 0)
    assert analysis.over([by_form["before"]], analysis.to_plain).mean == pytest.approx(31 / 3)
    (hurt,) = analysis.hurt_by_all(analysis.cells(results_of(HURT)))
    assert hurt.form == "drop"  # which hurts least
    saved = {**HURT, "L2-SP, drop": [79, 82, 82]}
    assert analysis.hurt_by_all(analysis.cells(results_of(saved))) == []
