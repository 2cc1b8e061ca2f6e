"""Short runs: few programs, the weights of ordinary runs, and folds of the images alone."""

from dataclasses import replace

import jax
import numpy as np
import pytest

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
from tests.finetune.pictures import names
from tests.finetune.runs import run

pytestmark = pytest.mark.usefixtures("quickly_compiled")
METHODS = ("finetune", "l2_sp", "l2_sp+dtnh", "feature_distance", "feature_distance+dtnh")


@pytest.fixture(scope="module")
def plan(arguments):
    argv = ["compare", *arguments, "--out", "unused"]
    return plan_of(finetune.parser().parse_args(argv))


@pytest.fixture(scope="module")
def trainer(plan, tmp_path_factory):
    settings = plan.settings[Candidate("finetune")]
    return Trainer(open_run(settings, tmp_path_factory.mktemp("none")), lambda: False)


@pytest.fixture(scope="module")
def images(trainer):
    return images_of(trainer.run.data.train, trainer.run.preprocessing)


def train(trainer, plan, candidate, source, seed=0):
    return trainer.train(replace(plan.settings[candidate], seed=seed), source, title="")


@pytest.mark.parametrize("method", METHODS)
def test_a_short_run_on_all_images_is_an_ordinary_run(
    trainer, plan, images, arguments, tmp_path, method
):
    candidate = [c for c in plan.settings if c.method == method][-1]
    short = train(trainer, plan, candidate, images[0])
    weight = [] if candidate.weight is None else ["--weight", candidate.weight]
    run(*arguments, "--method", method, *weight, out=tmp_path)
    ordinary = step.split(trained.read(tmp_path).model)
    found, expected = ((x.params, x.stats) for x in (short, ordinary))
    jax.tree.map(lambda *x: np.testing.assert_allclose(*x, rtol=1e-4, atol=1e-6), found, expected)


def test_one_program_for_each_method_trains_all_weights_seeds_and_folds(trainer, plan, images):
    folds = folds_of(images, trainer.run.data.train.labels, 2)
    for i, candidate in enumerate(plan.trained):
        train(trainer, plan, candidate, folds[i % 2].train, seed=i)
    assert trainer.program.cache_info().currsize == len(METHODS)
    for settings in {replace(x, weight=x.weight and 1.0) for x in plan.settings.values()}:
        program = trainer.program(settings)
        assert (program.init._cache_size(), program.advance._cache_size()) == (1, 1)
    before = trained._logits._cache_size()
    for seed in (0, 1):
        network = train(trainer, plan, plan.trained[0], folds[seed].train, seed)
        assert 0 <= trainer.accuracy(network, folds[seed].test) <= 1
    assert trained._logits._cache_size() == before + 1


def test_what_has_diverged_has_nothing_right(trainer, plan, images):
    network = trainer.network(plan.settings[Candidate("finetune")])
    network = network._replace(params=jax.tree.map(lambda x: x * np.nan, network.params))
    assert trainer.accuracy(network, images[1]) == 0


def test_a_comparison_costs_at_most_65_short_runs(trainer, plan, images):
    """All short runs, measured averages and two final runs, in flops of plain fine-tuning."""
    flops = {}
    for candidate in plan.trained:
        settings = replace(plan.settings[candidate], weight=candidate.weight and 1.0)
        program, network = trainer.program(settings), trainer.network(settings)
        batch = trainer._placed(next(iter(trainer._batches(settings, images[0]))))
        state = program.init(network.params, network.stats, np.float32(1))
        inputs = state, program.pretrained, batch, np.float32(1)
        flops[candidate] = program.advance.lower(*inputs).compile().cost_analysis()["flops"]
    one = flops[Candidate("finetune")]
    short = sum(flops[job.candidate] for job in jobs(plan))
    assert len(jobs(plan)) == 39
    assert short + one + max(flops.values()) < 65 * one


def test_the_average_is_half_of_the_way_and_keeps_the_head(trainer, plan, images):
    settings = plan.settings[Candidate("finetune")]
    tuned = train(trainer, plan, Candidate("finetune"), images[0])
    average = trainer.average(tuned, settings, images[0])
    start = trainer.network(settings).params
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
    assert memory.is_in_memory(images[0])
    assert not memory.is_in_memory(files[0])
    drawn = [next(iter(batches(x[0], how, trainer.run.settings))) for x in (images, files)]
    whole = [next(evaluation_batches(x[1], how, batch_size=8)) for x in (images, files)]
    for one, other in (drawn, whole):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_folds_are_stratified_and_each_image_validates_once(images, trainer):
    labels = trainer.run.data.train.labels
    folds = folds_of(images, labels, 2)
    assert {name for fold in folds for name in names(fold.test)} == {*names(images[0])}
    for fold in folds:
        assert sorted(names(fold.train) + names(fold.test)) == sorted(names(images[0]))
        assert np.bincount(fold.test.labels).tolist() == [2] * 10
    with pytest.raises(UsageError, match="`--folds` should be at most 4, .*, got 5"):
        folds_of(images, labels, 5)


def test_the_default_candidates_are_in_order_of_simplicity(plan):
    weights = {"l2_sp": (0.001, 0.01, 0.1), "feature_distance": (0.1, 1.0, 10.0)}
    pairs = ((base + end, base) for base in weights for end in ("", "+dtnh"))
    regularized = [(method, weight) for method, base in pairs for weight in weights[base]]
    assert list(plan.settings) == [("finetune", None), (AVERAGE, None), *regularized]
