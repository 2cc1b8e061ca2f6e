"""Short runs: few programs, the weights of ordinary runs, and folds of the images alone."""

import itertools

import jax
import numpy as np
import pytest
from flax import nnx

from optax_dtnh.finetune import __main__ as finetune
from optax_dtnh.finetune import step, trained
from optax_dtnh.finetune.batches import batches, evaluation_batches
from optax_dtnh.finetune.compare import memory
from optax_dtnh.finetune.compare.candidates import AVERAGE, Candidate, plan_of
from optax_dtnh.finetune.compare.memory import folds_of, images_of
from optax_dtnh.finetune.compare.training import Trainer
from optax_dtnh.finetune.compare.work import jobs
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.run import open_run
from tests.finetune.runs import run

pytestmark = pytest.mark.usefixtures("quickly_compiled")
METHODS = ("finetune", "l2_sp", "l2_sp+dtnh", "feature_distance", "feature_distance+dtnh")


def planned(arguments, *extra):
    argv = ["compare", *arguments, "--out", "unused", *extra]
    return plan_of(finetune.parser().parse_args(argv))


@pytest.fixture(scope="module")
def plan(arguments):
    return planned(arguments)


@pytest.fixture(scope="module")
def trainer(plan, tmp_path_factory):
    settings = plan.settings[Candidate("finetune")]
    return Trainer(open_run(settings, tmp_path_factory.mktemp("none")), lambda: False)


@pytest.fixture(scope="module")
def images(trainer):
    return images_of(trainer.run.data.train, trainer.run.preprocessing)


def train(trainer, plan, candidate, source, seed=0):
    settings = plan.compiled[candidate], plan.settings[candidate]
    return trainer.train(*settings, source, seed, title="")


@pytest.mark.parametrize("method", METHODS)
def test_a_short_run_on_all_images_is_an_ordinary_run(
    trainer, plan, images, arguments, tmp_path, method
):
    candidate = next(c for c in plan.settings if c.method == method)
    short = train(trainer, plan, candidate, images.train)
    weight = [] if candidate.weight is None else ["--weight", candidate.weight]
    run(*arguments, "--method", method, *weight, out=tmp_path)
    ordinary = step.split(trained.read(tmp_path).model)
    found, expected = ((x.params, x.stats) for x in (short, ordinary))
    jax.tree.map(lambda *x: np.testing.assert_allclose(*x, rtol=1e-4, atol=1e-6), found, expected)


def test_one_program_for_each_gradient_trains_all_weights_seeds_and_folds(trainer, plan, images):
    folds = folds_of(images, trainer.run.data.train.labels, 2)
    for i, candidate in enumerate(plan.trained):
        train(trainer, plan, candidate, folds[i % 2].train, seed=i)
    assert trainer.program.cache_info().currsize == 4
    for settings in {*plan.compiled.values()}:
        program = trainer.program(settings)
        assert (program.init._cache_size(), program.advance._cache_size()) == (1, 1)
    for seed in (0, 1):
        trainer.probabilities(
            train(trainer, plan, plan.trained[0], folds[seed].train, seed), images.test
        )
    assert trainer.logits._cache_size() == 1


def test_weight_and_protection_reach_a_shared_program(trainer, plan, images):
    weights = [
        nnx.to_flat_state(nnx.State(train(trainer, plan, c, images.train).params)).leaves
        for c in (Candidate("l2_sp", 0.1), Candidate("l2_sp", 0.01), Candidate("l2_sp+dtnh", 0.1))
    ]
    for one, other in itertools.combinations(weights, 2):
        assert any((x != y).any() for x, y in zip(one, other, strict=True))


@pytest.mark.slow
def test_decisions_by_element_have_a_program_of_their_own(trainer, arguments, images):
    plan = planned(arguments, "--granularity", "element", "--methods", "l2_sp", "l2_sp+dtnh")
    one, other = (
        jax.tree.leaves(train(trainer, plan, Candidate(method, 0.1), images.train).params)
        for method in ("l2_sp", "l2_sp+dtnh")
    )
    assert any((x != y).any() for x, y in zip(one, other, strict=True))


def test_a_comparison_costs_at_most_60_short_runs(trainer, plan, images):
    """All short runs, measured averages and two final runs, in flops of plain fine-tuning."""
    batch = next(iter(trainer._batches(images.train, 0)))
    flops = {}
    for candidate in plan.trained:
        program = trainer.program(plan.compiled[candidate])
        network = trainer.network(plan.compiled[candidate], seed=0)
        how = np.float32(1.0), np.bool_(True)
        state = program.init(network.params, network.stats, *how)
        inputs = state, program.pretrained, trainer._placed(batch), *how
        flops[candidate] = program.advance.lower(*inputs).compile().cost_analysis()["flops"]
    one = flops[Candidate("finetune")]
    short = sum(flops[job.candidate] for job in jobs(plan))
    assert len(jobs(plan)) == 39
    assert short + one + max(flops.values()) < 60 * one
    plain, protected = (flops[Candidate(m, 1.0)] for m in METHODS[3:])
    assert plain < 0.85 * protected  # one backward pass less


def test_the_average_is_half_of_the_way_and_keeps_the_head(trainer, plan, images):
    settings = plan.settings[Candidate("finetune")]
    tuned = train(trainer, plan, Candidate("finetune"), images.train)
    average = trainer.average(tuned, settings, images.train, seed=0)
    start = trainer.network(settings, seed=0).params
    for path, x in jax.tree.leaves_with_path(average.params):
        ends = (dict(jax.tree.leaves_with_path(tree))[path] for tree in (tuned.params, start))
        a, b = map(np.asarray, ends)
        expected = a if "head" in str(path) else (a + b) / 2
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-7)
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), average.stats, tuned.stats)
    assert all(jax.tree.leaves(changed))


def test_images_in_memory_give_the_same_inputs(trainer, images, monkeypatch):
    monkeypatch.setattr(memory, "LARGEST", 0)
    how, source = trainer.run.preprocessing, trainer.run.data.train
    files = images_of(source, how)
    assert memory.is_in_memory(images.train)
    assert not memory.is_in_memory(files.train)
    for kept, read in ((images.train, files.train), (images.test, files.test)):
        drawn = [next(iter(batches(x, how, batch_size=8, seed=0))) for x in (kept, read)]
        whole = [next(evaluation_batches(x, how, batch_size=8)) for x in (kept, read)]
        for one, other in (drawn, whole) if kept is images.test else (drawn,):
            assert all(np.array_equal(one[name], other[name]) for name in one)


def test_folds_are_stratified_and_each_image_validates_once(images, trainer):
    labels = trainer.run.data.train.labels
    folds = folds_of(images, labels, 2)
    held_out = [i for fold in folds for i in fold.test.indices]
    assert sorted(held_out) == list(range(40))
    for fold in folds:
        assert {*fold.train.indices}.isdisjoint(fold.test.indices)
        assert np.bincount(fold.test.labels).tolist() == [2] * 10
        assert [fold.test[0]["label"], fold.train[3]["label"]] == [
            labels[fold.test.indices[0]],
            labels[fold.train.indices[3]],
        ]
    with pytest.raises(UsageError, match="`--folds` should be at most 4, .*, got 5"):
        folds_of(images, labels, 5)


def test_the_default_candidates_are_in_order_of_simplicity(plan):
    weights = (0.001, 0.01, 0.1), (0.1, 1.0, 10.0)
    regularized = [
        (method, weight)
        for base, found in zip(("l2_sp", "feature_distance"), weights, strict=True)
        for method in (base, f"{base}+dtnh")
        for weight in found
    ]
    assert list(plan.settings) == [("finetune", None), (AVERAGE, None), *regularized]
