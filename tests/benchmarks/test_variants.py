"""The forms: what each does to a step, shared batches, resuming, regret."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from benchmarks.digits import data, methods, mini_batches, network
from benchmarks.digits.methods import ADAM, FINE_TUNING, RECIPE, SGD, loss_gradient
from benchmarks.digits.network import BACKBONE
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


# What every form does, by a second implementation with flat vectors in NumPy


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0], np.float64)


def formula(form, inside, leaf):
    """A function from `g`, `r` and `w` to SGD's direction, by leaf for `per leaf`."""
    v, v_r, average, steps = 0.0, 0.0, 0.0, itertools.count(1)

    def free(r, m, groups):
        m = m * inside
        dot, m_sq = (np.bincount(groups, x)[groups] for x in (r * m, m * m))
        return r - np.minimum(dot, 0) / np.maximum(m_sq, 1e-30) * m

    def step(g, r, w):
        nonlocal v, v_r, average
        decay = float(form.split()[-1]) if form.startswith("smoothed") else 0.0
        average = decay * average + (1 - decay) * g
        m, whole = average / (1 - decay ** next(steps)), np.zeros_like(leaf)
        summed = WEIGHT * free(r, m, leaf if form == "per leaf" else whole)
        if form == FINE_TUNING:
            summed = 1e-4 * w * inside
        if form.startswith("plain") or (form == "drop" and r @ g >= 0):
            summed = WEIGHT * r
        elif form == "drop":
            summed = 0 * r
        late = form in ("momentum", "decoupled", "plain, decoupled")
        v = 0.9 * v + g + 1e-3 * w * ~inside + (0 if late else summed)
        v_r = 0.9 * v_r + r
        return v + (WEIGHT * free(v_r, v, whole) if form == "momentum" else late * summed)

    return step


@pytest.mark.parametrize("regularizer", ["L2-SP", "KnowDist"])
def test_the_first_updates_of_every_form_are_those_of_its_formula(regularizer, source):
    target = data.task(DIGITS, 0, shots=5, test_size=600).target
    batches = [(jnp.asarray(target.pixels[i::3]), jnp.asarray(target.labels[i::3])) for i in (0, 1)]
    pair, w, path = jax.jit(methods.PAIRS[regularizer]), with_new_head(0, source), []
    for batch in batches:
        g = pair(w, source, *batch).loss_grads
        w = jax.tree.map(lambda w, d: w - 0.3 * d, w, g)
        path.append((w, pair(w, source, *batch)))
    leaves = jax.tree.leaves_with_path(w)
    leaf = np.repeat(range(len(leaves)), [x.size for _, x in leaves])
    inside = np.array([BACKBONE[path[0].key] for path, _ in leaves])[leaf]
    last = {}
    for method in forms.methods_of(SGD):
        if method.regularizer in (regularizer, None):
            form = method.name.removeprefix(f"{regularizer}, ")
            tx, step = method.optimizer(WEIGHT), formula(form, inside, leaf)
            state = tx.init(source)  # what L2-SP is pulled to
            for i, (w, grads) in enumerate(path):
                last[form] = step(flat(grads.loss_grads), flat(grads.reg_grads), flat(w))
                given = grads.loss_grads if method.gradients is loss_gradient else grads
                updates, state = tx.update(given, state, w)
                rate = RECIPE.learning_rate / 2 * (1 + np.cos(np.pi * i / RECIPE.steps))
                size = np.abs(last[form]).max()
                np.testing.assert_allclose(
                    flat(updates) / -rate, last[form], rtol=2e-3, atol=1e-4 * size, err_msg=form
                )
    assert set(last) == {FINE_TUNING, *forms.VARIANTS} - {"metric"}
    for a, b in itertools.combinations(set(last) - {FINE_TUNING}, 2):  # or it tells none apart
        assert np.abs(last[a] - last[b]).max() > 1e-3 * np.abs(last[a]).max(), (a, b)


def test_with_adam_the_forms_contain_adam_and_the_metric_is_there():
    names = [m.name for m in forms.methods_of(ADAM) if m.regularizer == "KnowDist"]
    assert names == [f"KnowDist, {form}" for form in forms.VARIANTS]
    for method in forms.methods_of(ADAM):
        state = method.optimizer(WEIGHT).init({k: jnp.ones(2) for k in BACKBONE})
        assert optax.tree.get_all_with_path(state, "nu"), method.name


# Batches and the head come from the seed


def test_batches_depend_on_the_seed_and_take_every_image_once_an_epoch():
    batches = mini_batches.draw(3, images=50, steps=25, size=16)
    np.testing.assert_array_equal(batches, mini_batches.draw(3, images=50, steps=25, size=16))
    assert not np.array_equal(batches, mini_batches.draw(4, images=50, steps=25, size=16))
    for epoch in batches.ravel().reshape(8, 50):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(50))


def test_a_repeated_target_has_the_same_gradient(source):
    target = data.task(DIGITS, 0, shots=5).target
    more = mini_batches.repeated(data.Images(target.pixels[None], target.labels[None]), 4)
    assert more.labels.shape == (1, 200)
    g, g_more = (
        loss_gradient(source, source, jnp.asarray(t.pixels), jnp.asarray(t.labels))
        for t in (target, data.Images(more.pixels[0], more.labels[0]))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), g, g_more)


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


def test_steps_down_the_gradient_count_as_descending_and_steps_up_do_not(outcome):
    sgd = methods.fine_tuning(SGD)._replace(optimizer=optax.sgd)  # the weight is the learning rate
    found = outcome(training.program(sgd, 10), [0.01, -0.01], np.arange(2), None)
    np.testing.assert_array_equal(found.descent, [[1, 1], [0, 0]])


# The whole benchmark, small, and killed


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("variants")
    return out, runs.run(TINY, out / "runs.jsonl")


def killed(finished, folder):
    """The records of a run that was killed while it wrote the last line but one."""
    whole = (finished[0] / "runs.jsonl").read_text().splitlines(keepends=True)
    (folder / "runs.jsonl").write_text("".join(whole[:5]) + whole[5][:20])
    return folder / "runs.jsonl"


def test_networks_learn_and_the_regularizer_that_hurts_descends_less_often(finished):
    results = analysis.with_intervals(finished[1])
    assert len(results["runs"]) == 5
    by_form = {(c.form, c.weight): c for c in analysis.cells(results) if c.regularizer == "L2-SP"}
    fine_tuned = by_form[FINE_TUNING, 10.0]
    assert fine_tuned.accuracy.min() > 80
    assert by_form["plain", 10.0].descent < fine_tuned.descent == 1


def test_a_killed_run_trains_what_is_missing_and_a_finished_one_nothing(
    finished, tmp_path, monkeypatch
):
    trained, program = [], training.program

    def counted(method):
        compiled = program(method)
        return lambda *args: trained.append(method.name) or compiled(*args)

    monkeypatch.setattr(training, "program", counted)
    assert runs.run(TINY, finished[0] / "runs.jsonl") == finished[1]
    assert trained == []
    assert runs.run(TINY, killed(finished, tmp_path)) == finished[1]
    assert len(trained) == 1  # the one whose line was torn


def test_a_run_is_not_resumed_with_other_settings_or_versions(finished, tmp_path, monkeypatch):
    file = killed(finished, tmp_path)
    before = file.read_bytes()
    with pytest.raises(UsageError, match="got one with other weights"):
        runs.run(TINY._replace(weights=(2.0,)), file)
    assert file.read_bytes() == before
    monkeypatch.setattr(record, "environment", lambda: {"jax": "another"})
    with pytest.raises(UsageError, match="got one with other environment"):
        runs.run(TINY, file)


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
    assert by_form["plain"].regret.mean == 20
    assert by_form[FINE_TUNING].regret.mean == 0
    assert analysis.over([by_form["before"]], analysis.to_plain).mean == pytest.approx(31 / 3)


def test_a_cell_that_every_form_hurts_is_found_with_the_form_that_hurts_least():
    (cell,) = analysis.hurt_by_all(analysis.cells(results_of(HURT)))
    assert cell.form == "drop"
    saved = {**HURT, "L2-SP, drop": [79, 82, 82]}
    assert analysis.hurt_by_all(analysis.cells(results_of(saved))) == []
