"""Short runs: few programs, the weights of ordinary runs, and folds of the images alone."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from optax_dtnh.finetune import __main__ as finetune
from optax_dtnh.finetune import step, trained
from optax_dtnh.finetune.batches import batches, evaluation_batches
from optax_dtnh.finetune.compare import folds
from optax_dtnh.finetune.compare.candidates import AVERAGE, REFERENCE, plan_of
from optax_dtnh.finetune.compare.folds import folds_of, is_in_memory
from optax_dtnh.finetune.compare.scores import missing
from optax_dtnh.finetune.compare.training import Trainer
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.run import open_run
from optax_dtnh.finetune.student import student
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
    settings = plan.settings[REFERENCE]
    return Trainer(open_run(settings, tmp_path_factory.mktemp("none")), lambda: False)


@pytest.fixture(scope="module")
def images(trainer):
    return trainer.run.data.train


@pytest.fixture(scope="module")
def halves(trainer, images):
    return folds_of(images, 2, trainer.run.preprocessing, "standard")


def train(trainer, plan, candidate, source, seed=0):
    return trainer.train(replace(plan.settings[candidate], seed=seed), source, title="")


def untrained(trainer, plan):
    return student(trainer.run.source, 10, plan.settings[REFERENCE])


@pytest.mark.parametrize("method", METHODS)
def test_a_short_run_on_all_images_is_an_ordinary_run(
    trainer, plan, images, arguments, tmp_path, method
):
    candidate = [c for c in plan.settings if c.method == method][-1]
    short = train(trainer, plan, candidate, images)
    weight = [] if candidate.weight is None else ["--weight", candidate.weight]
    run(*arguments, "--method", method, *weight, out=tmp_path)
    ordinary = step.split(trained.read(tmp_path).model)
    found, expected = ((x.params, x.stats) for x in (short, ordinary))
    jax.tree.map(lambda *x: np.testing.assert_allclose(*x, rtol=1e-4, atol=1e-6), found, expected)


def test_one_program_for_each_method_trains_all_weights_seeds_and_folds(trainer, plan, halves):
    for i, candidate in enumerate(plan.trainings):
        train(trainer, plan, candidate, halves[i % 2][0], seed=i)
    assert trainer.program.cache_info().currsize == len(METHODS)
    for settings in {replace(x, weight=x.weight and 1.0) for x in plan.settings.values()}:
        init, advance, _ = trainer.program(settings)
        assert (init._cache_size(), advance._cache_size()) == (1, 1)
    before = trained._logits._cache_size()
    for seed, (images, held_out) in enumerate(halves):
        network = train(trainer, plan, REFERENCE, images, seed)
        assert 0 <= trainer.accuracy(network, held_out) <= 1
    assert trained._logits._cache_size() == before + 1


def test_what_has_diverged_has_nothing_right(trainer, plan, images):
    network = untrained(trainer, plan)
    network = network._replace(params=jax.tree.map(lambda x: x * np.nan, network.params))
    assert trainer.accuracy(network, images) == 0


def test_a_comparison_costs_at_most_65_short_runs(trainer, plan, images):
    """All short runs, measured averages and two final runs, in flops of plain fine-tuning."""
    flops, network = {}, untrained(trainer, plan)
    for candidate in plan.trainings:
        settings = replace(plan.settings[candidate], weight=candidate.weight and 1.0)
        init, advance, pretrained = trainer.program(settings)
        state, batch = init(*network[1:]), next(trainer.batches(settings, images))
        step = advance.lower(state, pretrained, batch, np.float32(1)).compile()
        flops[candidate] = step.cost_analysis()["flops"]
    runs = missing(plan, {candidate: {} for candidate in plan.settings})
    assert len(runs) == 39
    short = sum(flops[candidate] for _, candidate in runs)
    assert short + flops[REFERENCE] + max(flops.values()) < 65 * flops[REFERENCE]


def test_the_average_is_half_of_the_way_and_keeps_the_head(trainer, plan, images):
    tuned = train(trainer, plan, REFERENCE, images)
    average = trainer.average(tuned, plan.settings[REFERENCE], images)
    start = untrained(trainer, plan).params
    for path, x in jax.tree.leaves_with_path(average.params):
        ends = (dict(jax.tree.leaves_with_path(tree))[path] for tree in (tuned.params, start))
        a, b = map(np.asarray, ends)
        expected = a if "head" in str(path) else (a + b) / 2
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-7)
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), average.stats, tuned.stats)
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize("augment", ["standard", "none"])
def test_images_in_memory_give_the_same_inputs(trainer, images, monkeypatch, augment):
    how, settings = trainer.run.preprocessing, replace(trainer.run.settings, augment=augment)
    in_memory, _ = folds_of(images, 2, how, augment)
    monkeypatch.setattr(folds, "LARGEST", 0)
    files, _ = folds_of(images, 2, how, augment)
    assert [is_in_memory(part) for part in (*in_memory, *files)] == [True, True, False, False]
    drawn = [next(iter(batches(fold[0], how, settings))) for fold in (in_memory, files)]
    whole = [next(evaluation_batches(fold[1], how, batch_size=8)) for fold in (in_memory, files)]
    for one, other in (drawn, whole):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_folds_are_stratified_and_each_image_validates_once(images, halves, trainer):
    everything = sorted(names(images))
    assert sorted(name for _, part in halves for name in names(part)) == everything
    for trained_on, validated in halves:
        assert sorted(names(trained_on) + names(validated)) == everything
        assert np.bincount(validated.labels).tolist() == [2] * 10
    with pytest.raises(UsageError, match="`--folds` should be at most 4, .*, got 5"):
        folds_of(images, 5, trainer.run.preprocessing, "standard")


def test_the_default_candidates_are_in_order_of_simplicity(plan):
    weights = {"l2_sp": (0.001, 0.01, 0.1), "feature_distance": (0.1, 1.0, 10.0)}
    pairs = ((base + end, base) for base in weights for end in ("", "+dtnh"))
    regularized = [(method, weight) for method, base in pairs for weight in weights[base]]
    assert list(plan.settings) == [("finetune", None), (AVERAGE, None), *regularized]
