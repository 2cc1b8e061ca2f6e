"""The programs of the benchmark on a real network, with a small network in its place."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from benchmarks.real import cells, layers, material, report, runs, training
from benchmarks.real.training import COARSE, IN_FEATURES, RENEWED
from optax_dtnh import DTNHGradState, GradientPair, dtnh, transform_pair, value_and_dtnh_grad
from optax_dtnh.regularizers import feature_distance

pytestmark = pytest.mark.slow

SCALE = material.Scale(8, shots=4, test=20, seeds=1, few=1, tuning=1, lanes=2, shrink=10)
RNG = np.random.default_rng(0)
LABELS = (np.arange(500) % 4).astype(np.int32)
PIXELS = (RNG.normal(size=(500, 2, 2, 3)) + LABELS[:, None, None, None]).astype(np.float32)
TREE = {"last": {"kernel": RNG.normal(size=(12, 6)).astype(np.float32) / 3}}
BACKBONE, UNRAVEL = ravel_pytree(TREE)
HEAD = {"kernel": RNG.normal(size=(6, 9)).astype(np.float32), "bias": np.zeros(9, np.float32)}


def apply(params, images):
    kernel = UNRAVEL(params["backbone"])["last"]["kernel"]
    last, head = jnp.tanh(images.reshape(len(images), -1) @ kernel), params["head"]
    return last @ head["kernel"] + head["bias"][None], last[:, None, None]


def network():
    original, parts = {"backbone": BACKBONE, "head": HEAD}, material.parts_of(TREE)
    return material.Material(apply, UNRAVEL, parts, original, PIXELS, LABELS, PIXELS[:80])


SMOOTHED, APART = {"smoothing": 0.9}, {"momenta": (0.9, 0.8, 0.0)}
SETTINGS = [(method, {}) for method in COARSE] + [("per element", x) for x in (SMOOTHED, APART)]


def chained(method, smoothing=0.0, momenta=(0.0, 0.0, 0.9)):
    """The same steps, of a pair, as a chain of the library and optax."""
    options = {"reference": optax.ema(smoothing), "mask": {"backbone": True, "head": False}}
    *apart, last = map(optax.trace, momenta)
    tx = dtnh(3.0, **options, **COARSE[method])
    return optax.chain(transform_pair(*apart), tx, last, optax.scale(-0.1))


@pytest.mark.parametrize(("method", "options"), SETTINGS)
def test_a_lane_takes_the_steps_of_a_chain(method, options):
    run = cells.Run("", method, "L2-SP", 3.0, 0.1, 0, **options)
    lane = material.lane_of(run, network(), SCALE)
    start, plan = material.with_new_head(BACKBONE, 0, 6), training.plan(8, SCALE.per_pass(1), 1)
    decide = training.switched([training.coarse(COARSE[method])])
    given = decide, plan, lambda *_: 0.0, None, cells.usual(run)
    train = jax.jit(training.train(apply, "L2-SP", *given))
    found, *_ = train(0, lane, start, BACKBONE, jnp.asarray(PIXELS))
    tx = chained(method, **options)
    params, state = start, tx.init(start)
    for rate, batch in zip(plan.rate, lane.batches[:8], strict=True):
        images, labels = PIXELS[lane.images[batch]], lane.labels[batch]
        loss = lambda p: training.cross_entropy(apply(p, images)[0], labels)  # noqa: B023, E731
        r = {**optax.tree.zeros_like(params), "backbone": params["backbone"] - BACKBONE}
        updates, state = tx.update(GradientPair(jax.grad(loss)(params), r), state, params)
        params = jax.tree.map(lambda w, u: w + rate * u, params, updates)  # noqa: B023
    np.testing.assert_allclose(found["backbone"], params["backbone"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [*RENEWED, IN_FEATURES])
def test_a_lane_takes_the_steps_of_one_backward_pass(method):
    run = cells.Run("", method, "KnowDist", 3.0, 0.1, 0)
    lane = material.lane_of(run, network(), SCALE)
    start, plan = material.with_new_head(BACKBONE, 0, 6), training.plan(8, SCALE.per_pass(1), 1)
    decide, gradients = training.renewed([*RENEWED.values()]), "KnowDist"
    if method == IN_FEATURES:
        decide, gradients = training.switched([lambda _, r: r]), method
    given = decide, plan, lambda *_: 0.0, None, cells.usual(run)
    train = jax.jit(training.train(apply, gradients, *given))
    place = runs.place_of(method)
    found, *_ = train(place, lane, start, BACKBONE, jnp.asarray(PIXELS))
    params, tx = start, optax.trace(0.9)
    state, evaluate = tx.init(start), one_pass(method)
    kept = DTNHGradState()
    for rate, batch in zip(plan.rate, lane.batches[:8], strict=True):
        images, labels = PIXELS[lane.images[batch]], lane.labels[batch]
        grads, kept = evaluate(kept, params, images, labels)
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(lambda w, u: w - 0.1 * rate * u, params, updates)  # noqa: B023
    np.testing.assert_allclose(found["backbone"], params["backbone"], rtol=1e-4, atol=1e-6)
    assert np.abs(found["backbone"] - start["backbone"]).max() > 1e-3


def one_pass(method):
    """The evaluation by the library, or by hand where it is decided in the features."""

    def losses(params, images, labels):
        logits, last = apply(params, images)
        teacher = apply({**params, "backbone": BACKBONE}, images)[1]
        distance = feature_distance(last, jax.lax.stop_gradient(teacher))
        return training.cross_entropy(logits, labels), distance

    mask = {"backbone": True, "head": False}
    if method in RENEWED:
        evaluate = value_and_dtnh_grad(losses, 3.0, every=RENEWED[method], mask=mask)
        return lambda *args: evaluate(*args)[1:]

    def in_features(kept, params, images, labels):
        def of(last):  # the map of each image, as the head sees it
            logits = last[:, 0, 0] @ params["head"]["kernel"] + params["head"]["bias"][None]
            return training.cross_entropy(logits, labels)

        last, pull = jax.vjp(lambda p: apply(p, images)[1], params)
        teacher = apply({**params, "backbone": BACKBONE}, images)[1]
        g, r = jax.grad(of)(last), jax.grad(feature_distance)(last, teacher)
        r = jax.vmap(lambda r, g: r - jnp.minimum(jnp.vdot(r, g), 0) / jnp.vdot(g, g) * g)(r, g)
        (grads,) = pull(g + 3.0 * r)
        head = jax.grad(lambda p: losses(p, images, labels)[0])(params)["head"]
        return {**grads, "head": head}, kept

    return in_features


def test_a_stopped_experiment_resumes_to_the_same_lines_and_runs_nothing_twice(tmp_path):
    given = network, SCALE, tmp_path / "real.jsonl"
    lines = runs.experiment(*given, 60, smoke=True)
    assert runs.experiment(*given, 60, smoke=True) == lines
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    whole = given[2].read_text().splitlines(keepends=True)
    given[2].write_text("".join(whole[:-4]) + whole[-4][:99])  # stopped while it wrote a line
    again = runs.experiment(*given, 60, smoke=True)
    found, repeated = ([x for x in some if "cell" in x] for some in (lines, again))
    both = (sorted(some, key=cells.run_of) for some in (found, repeated))
    assert all(a | {"session": b["session"]} == b for a, b in zip(*both, strict=True))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")} == made != {}
    assert np.all(np.isfinite([line["training_loss"] for line in found]))
    results = {
        "question": "?",
        "first": "stage7",
        "settings": SCALE._asdict(),
        "runs": report.grouped(found),
    }
    assert all(name in report.text(results) for name in ("ImageNet | KnowDist", "per channel"))


def test_layers_report_each_part_and_what_finer_decisions_would_remove():
    choice = cells.Choice({("L2-SP", "ImageNet", 3.0): 0.1}, {"L2-SP": (0.3, 3.0)})
    rows = layers.measured(network(), SCALE, choice, [0, 1])
    of = [(row["of"], row["part"]) for row in rows]
    assert of == [*itertools.product(layers.OF, (layers.TOTAL, "last"))]
    for whole, last in (rows[:2], rows[2:]):
        assert whole | {"part": "last"} == last  # the only part, of a single leaf
        assert whole["opposed"] == last["conflict, per leaf"]
        assert whole["removed, whole tree"] == last["removed, per leaf"]
        opposed = np.minimum(whole["cosine"], 0)
        assert whole["removed, per leaf"] == pytest.approx(opposed**2, rel=1e-4)
        assert np.all(np.greater(whole["removed, per element"], whole["removed, per leaf"]))
    assert "| all images, after training | last |" in layers.text({"rows": rows})
