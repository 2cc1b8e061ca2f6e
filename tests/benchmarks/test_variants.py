"""The benchmark of forms: what each does to a step, shared batches, resuming, figures of merit."""

import itertools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.digits import data, mini_batches, network
from benchmarks.digits.__main__ import SAME
from benchmarks.digits.head import l2_sp_pair
from benchmarks.digits.methods import feature_pair, loss_gradient
from benchmarks.digits.network import BACKBONE
from benchmarks.digits.training import with_new_head
from benchmarks.digits.variants import __main__ as variants
from benchmarks.digits.variants import analysis, cases, forms, runs, table, training
from benchmarks.digits.variants.forms import FORMS, OPTIMIZERS, RECIPE
from benchmarks.harness import record

DIGITS = data.load()
ALL = [
    (optimizer.name, method.name)
    for optimizer in OPTIMIZERS
    for method in forms.methods_of(optimizer)
]


# What every form does, by a second implementation in NumPy

Vectors = dict[tuple[str, str], np.ndarray]
RATES = {"SGD": 0.05, "Adam": 0.01}
WEIGHT = 3.0


def vectors(tree: Any) -> Vectors:
    return {(k, n): np.asarray(x, np.float64) for k, v in tree.items() for n, x in v.items()}


def inner(x: Vectors, y: Vectors) -> float:
    return sum(float(np.sum(x[k] * y[k])) for k in x if BACKBONE[k[0]])


def add(x: Vectors, weight: float, y: Vectors) -> Vectors:
    return {k: x[k] + weight * y[k] * BACKBONE[k[0]] for k in x}


def free(r: Vectors, m: Vectors) -> Vectors:
    c = min(inner(r, m), 0.0) / inner(m, m)
    return {k: r[k] - c * m[k] for k in r}


def free_leaf_by_leaf(r: Vectors, m: Vectors) -> Vectors:
    return {k: r[k] - min(np.sum(r[k] * m[k]), 0) / np.sum(m[k] ** 2) * m[k] for k in r}


class Direction:
    """SGD's momentum or Adam's direction, and what they remember."""

    def __init__(self, name: str):
        self.name, self.t, self.m, self.v = name, 0, {}, {}

    def __call__(self, g: Vectors) -> Vectors:
        self.t += 1
        if self.name == "SGD":
            self.m = {k: g[k] + 0.9 * self.m.get(k, 0.0) for k in g}
            return self.m
        self.m = {k: 0.1 * g[k] + 0.9 * self.m.get(k, 0.0) for k in g}
        self.v = {k: 0.001 * g[k] ** 2 + 0.999 * self.v.get(k, 0.0) for k in g}
        return {k: self.m[k] / (1 - 0.9**self.t) / self.root(k) for k in g}

    def root(self, k: Any) -> np.ndarray:
        return np.sqrt(self.v[k] / (1 - 0.999**self.t)) + 1e-8

    def preconditioner(self) -> Vectors:
        inside = np.concatenate([self.v[k].ravel() for k in self.v if BACKBONE[k[0]]])
        typical = np.sqrt(inside.mean() / (1 - 0.999**self.t)) + 1e-8
        return {k: 1 / np.maximum(self.root(k), typical / 10) for k in self.v}


class Average:
    """A moving average of gradients, corrected for its start at zero."""

    def __init__(self, decay: float):
        self.decay, self.t, self.sum = decay, 0, {}

    def __call__(self, g: Vectors) -> Vectors:
        self.t += 1
        self.sum = {k: (1 - self.decay) * g[k] + self.decay * self.sum.get(k, 0.0) for k in g}
        return {k: x / (1 - self.decay**self.t) for k, x in self.sum.items()}


def decayed(g: Vectors, w: Vectors) -> Vectors:
    return {k: g[k] + (0 if BACKBONE[k[0]] else 1e-3 * w[k]) for k in g}


def second_implementation(name: str, optimizer: str) -> Any:
    """A function from `g`, `r` and `w` to the direction, with a memory."""
    direction, second, form = Direction(optimizer), Direction(optimizer), name.partition(", ")[2]
    average = Average(0.99 if form == "EMA 0.99" else 0.9)
    before = {
        "plain": lambda g, r: r,
        "DTNH": lambda g, r: free(r, g),
        "EMA 0.9": lambda g, r: free(r, average(g)),
        "EMA 0.99": lambda g, r: free(r, average(g)),
        "per leaf": lambda g, r: free_leaf_by_leaf(r, g),
        "drop": lambda g, r: r if inner(r, g) >= 0 else {k: 0 * x for k, x in r.items()},
    }

    def step(g: Vectors, r: Vectors, w: Vectors) -> Vectors:
        if name == "fine-tuning":
            return direction(decayed(add(g, 1e-4, w), w))
        if form in before:
            return direction(decayed(add(g, WEIGHT, before[form](g, r)), w))
        u = direction(decayed(g, w))
        if form == "decoupled":
            return add(u, WEIGHT, free(r, g))
        if form == "plain, decoupled":
            return add(u, WEIGHT, r)
        if form == "separate":
            return add(u, WEIGHT, free(second(r), u))
        p = direction.preconditioner()
        pg, pr = ({k: p[k] * x[k] for k in x} for x in (g, r))
        c = min(inner(g, pr), 0.0) / inner(g, pg)
        return add(u, WEIGHT, {k: pr[k] - c * pg[k] for k in pr})

    return step


@pytest.fixture(scope="module")
def source():
    return network.init(jax.random.key(5))


GRADIENTS = (loss_gradient, l2_sp_pair, feature_pair)


@pytest.fixture(scope="module")
def path(source):
    """Three places away from the source, and all gradients there, as a training would see them."""
    target = data.task(DIGITS, 0, shots=5, test_size=600).target
    x, y = jnp.asarray(target.pixels)[:48], jnp.asarray(target.labels)[:48]
    all_gradients = jax.jit(lambda p, x, y: [f(p, source, x, y) for f in GRADIENTS])
    places, params = [], with_new_head(0, source)
    for i in range(3):
        batch = x[i::3], y[i::3]
        g = all_gradients(params, *batch)[0]
        params = jax.tree.map(lambda w, d: w - 0.3 * d, params, g)
        places.append((params, dict(zip(GRADIENTS, all_gradients(params, *batch), strict=True))))
    return places


def reg_grads(method, params, source, gradients) -> Vectors:
    if method.regularizer == "L2-SP":
        return {k: (vectors(params)[k] - s) * BACKBONE[k[0]] for k, s in vectors(source).items()}
    return vectors(gradients[feature_pair].reg_grads)


@pytest.mark.parametrize(("optimizer", "name"), ALL)
def test_the_first_updates_of_every_form_are_those_of_its_formula(optimizer, name, source, path):
    chosen = next(o for o in OPTIMIZERS if o.name == optimizer)
    method = next(m for m in forms.methods_of(chosen) if m.name == name)
    tx, step = method.optimizer(WEIGHT), second_implementation(name, optimizer)
    state = tx.init(source)  # what L2-SP is pulled to
    for i, (params, gradients) in enumerate(path):
        g, w = vectors(gradients[loss_gradient]), vectors(params)
        r = reg_grads(method, params, source, gradients)
        rate = RATES[optimizer] / 2 * (1 + np.cos(np.pi * i / RECIPE.steps))
        expected = {k: -rate * u for k, u in step(g, r, w).items()}
        updates, state = tx.update(gradients[method.gradients], state, params)
        for k, x in vectors(updates).items():
            size = np.abs(expected[k]).max()
            np.testing.assert_allclose(x, expected[k], rtol=2e-3, atol=2e-4 * size)


@pytest.mark.parametrize("optimizer", list(RATES))
def test_the_formulas_differ_from_one_another(optimizer, path):
    """Otherwise the test above could not tell one form from another."""
    names = [n for o, n in ALL if o == optimizer and n.startswith("KnowDist")]
    last = {}
    for name in names:
        step = second_implementation(name, optimizer)
        for params, gradients in path:
            pair = gradients[feature_pair]
            u = step(vectors(pair.loss_grads), vectors(pair.reg_grads), vectors(params))
        last[name] = np.concatenate([u[k].ravel() for k in sorted(u)])
    for a, b in itertools.combinations(names, 2):
        assert np.abs(last[a] - last[b]).max() > 1e-3 * np.abs(last[a]).max(), (a, b)


# Batches and the head come from the seed


def test_batches_depend_on_the_seed_and_take_every_image_once_an_epoch():
    batches = mini_batches.draw(3, images=50, steps=25, size=16)
    np.testing.assert_array_equal(batches, mini_batches.draw(3, images=50, steps=25, size=16))
    assert not np.array_equal(batches, mini_batches.draw(4, images=50, steps=25, size=16))
    for epoch in batches.ravel().reshape(8, 50):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(50))


def test_a_repeated_target_has_the_same_loss_and_gradient(source):
    target = data.task(DIGITS, 0, shots=5).target
    stacked = data.Images(target.pixels[None], target.labels[None])
    more = mini_batches.repeated(stacked, 4)
    assert more.labels.shape == (1, 200)
    g, g_more = (
        loss_gradient(source, source, jnp.asarray(t.pixels), jnp.asarray(t.labels))
        for t in (target, data.Images(more.pixels[0], more.labels[0]))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), g, g_more)


SGD = OPTIMIZERS[0]
TINY = cases.grid(("SGD",), (16,), (SAME,), (5,), (0.0,), (1.0, 10.0), 2, FORMS[:2])


@pytest.fixture(scope="module", autouse=True)
def quick_to_compile():
    """Two seeds run faster than their programs are optimized."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "COMPILER_OPTIONS", {})
        yield
    jax.config.update(name, before)


def outcome(program, weights, seeds, batches, tasks):
    networks = jax.vmap(lambda s: network.init(jax.random.key(s)))(np.arange(2))
    return program(np.array(weights, np.float32), seeds, networks, tasks, batches)


@pytest.fixture(scope="module")
def tasks():
    return cases.tasks_of(TINY)[5, 0.0]


@pytest.fixture(scope="module")
def batches():
    return mini_batches.draw_all(2, 50, 10, 16)


def test_methods_of_one_seed_share_batches_and_head(tasks, batches):
    """At weight 0 they are one method, and give the same loss to rounding."""
    both = [training.program(forms.method(SGD, "L2-SP", form), 10) for form in FORMS[:2]]
    plain, dtnh = (outcome(program, [0.0], np.arange(2), batches, tasks) for program in both)
    np.testing.assert_allclose(plain.training_loss, dtnh.training_loss, rtol=1e-5)
    other_head = outcome(both[0], [0.0], np.arange(2) + 7, batches, tasks)
    other_batches = outcome(both[0], [0.0], np.arange(2), batches[::-1], tasks)
    for other in (other_head, other_batches):
        assert np.abs(np.asarray(other.training_loss - plain.training_loss)).min() > 1e-4


def test_steps_down_the_gradient_count_as_descending_and_steps_up_do_not(tasks):
    sgd = forms.fine_tuning(SGD)._replace(optimizer=optax.sgd)  # the weight is the learning rate
    found = outcome(training.program(sgd, 10), [0.01, -0.01], np.arange(2), None, tasks)
    np.testing.assert_array_equal(found.descent, [[1, 1], [0, 0]])


# The whole benchmark, small, and killed


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("variants")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "QUICK", TINY)
        variants.main(["--quick", "--out", str(out)])
    return out, record.read(out / "variants.json")


def test_a_run_writes_records_tables_and_a_figure(finished):
    out, results = finished
    assert len(results["runs"]) == 5
    assert (out / "variants.png").read_bytes().startswith(b"\x89PNG")
    assert table.markdown(results) in (out / "variants.md").read_text()
    for entry in results["runs"]:
        weights = 1 if entry["method"] == "fine-tuning" else 2
        assert [len(by_seed) for by_seed in entry["correct"]] == [2] * weights
        assert len(entry["descent"]) == len(entry["training_loss"]) == weights
    assert str(out) not in json.dumps(results)


def test_networks_learn_the_digits(finished):
    _, results = finished
    (cell, *_) = [c for c in analysis.cells(results) if c.form == "fine-tuning"]
    assert cell.accuracy.min() > 80


def test_the_regularizer_that_hurts_descends_less_often_than_fine_tuning(finished):
    _, results = finished
    by_form = {(c.form, c.weight): c for c in analysis.cells(results) if c.regularizer == "L2-SP"}
    assert by_form["plain", 10.0].descent < by_form["fine-tuning", 10.0].descent == 1


def calls(monkeypatch):
    """The methods that are trained from here on."""
    trained, whole = [], training.program

    def counted(method, steps):
        compiled = whole(method, steps)
        return lambda *args: trained.append(method.name) or compiled(*args)

    monkeypatch.setattr(training, "program", counted)
    return trained


def copied(out, folder, lines):
    """A folder with the records of a run that was killed after so many whole lines."""
    (folder / "sources").mkdir()
    whole = (out / "variants.jsonl").read_text().splitlines(keepends=True)
    (folder / "variants.jsonl").write_text("".join(whole[:lines]) + whole[lines][:20])
    return folder


def test_a_killed_run_goes_on_with_what_is_missing(finished, tmp_path, monkeypatch):
    out, results = finished
    trained = calls(monkeypatch)
    again = runs.run(TINY, copied(out, tmp_path, 5), "variants")
    assert len(trained) == 1  # the one whose line was torn
    for run, entry in zip(again["runs"], results["runs"], strict=True):
        assert run.items() <= entry.items()


def test_a_finished_run_trains_nothing(finished, monkeypatch):
    out, results = finished
    trained = calls(monkeypatch)
    runs.run(TINY, out, "variants")
    assert trained == []


def test_the_folder_of_another_run_is_refused_and_left_alone(finished, monkeypatch, capsys):
    out, _ = finished
    before = (out / "variants.jsonl").read_bytes()
    monkeypatch.setattr(variants, "QUICK", TINY._replace(weights=(2.0,)))
    with pytest.raises(SystemExit):
        variants.main(["--quick", "--out", str(out)])
    assert "got one with other weights" in capsys.readouterr().err
    assert (out / "variants.jsonl").read_bytes() == before


def test_a_run_does_not_go_on_with_other_versions(finished, tmp_path, monkeypatch):
    out, _ = finished
    monkeypatch.setattr(record, "environment", lambda: {"jax": "another"})
    with pytest.raises(runs.OtherSettingsError, match="got one with other environment"):
        runs.run(TINY, copied(out, tmp_path, 5), "variants")


# Figures of merit


def results_of(by_method, weights=(1.0,)):
    """Results of one case, from correct answers of 100 by seed."""
    case = {"name": "c", "optimizer": "SGD", "batch": 16, "source": "rot90", "shots": 5, "noise": 0}
    return {
        "cases": [case],
        "methods": {"SGD": list(by_method)},
        "weights": list(weights),
        "seeds": [0, 1, 2],
        "test_images": 100,
        "runs": [
            {"case": "c", "method": m, "correct": [x], "training_loss": [0.5], "descent": [0.75]}
            for m, x in by_method.items()
        ],
    }


HURT = {
    "fine-tuning": [80, 81, 82],
    "L2-SP, plain": [60, 61, 62],
    "L2-SP, DTNH": [70, 71, 73],
    "L2-SP, drop": [76, 76, 79],
}


def test_regret_is_against_the_better_of_fine_tuning_and_the_plain_regularizer():
    by_form = {c.form: c for c in analysis.cells(results_of(HURT))}
    assert by_form["DTNH"].regret.mean == pytest.approx((10 + 10 + 9) / 3)
    assert by_form["plain"].regret.mean == 20
    assert by_form["fine-tuning"].regret.mean == 0
    assert analysis.over([by_form["DTNH"]], analysis.to_plain).mean == pytest.approx(31 / 3)


def test_a_cell_that_every_form_hurts_is_found_with_the_form_that_hurts_least():
    (cell,) = analysis.hurt_by_all(analysis.cells(results_of(HURT)))
    assert cell.form == "drop"
    saved = {**HURT, "L2-SP, drop": [79, 82, 82]}
    assert analysis.hurt_by_all(analysis.cells(results_of(saved))) == []


def test_the_table_names_the_best_form_and_its_differences():
    text = table.which_form(analysis.cells(results_of(HURT)))
    assert text.splitlines()[-1] == ("| rotated source | L2-SP | drop: +16.0 ± 2.5; -4.0 ± 2.5 |")


def test_a_diverged_run_is_called_so():
    results = results_of(HURT)
    results["runs"][2]["training_loss"] = [None]
    assert "none (1 diverged)" in table.by_setting(analysis.cells(results))
