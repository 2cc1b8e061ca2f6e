"""The digits benchmark: its data, checkpoints, methods, record, table, figure and command line."""

import contextlib
import functools
import io
import json
import subprocess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.digits import __main__ as digits
from benchmarks.digits import checkpoint, data, figure, head, network, table
from benchmarks.digits.methods import Method, loss_gradient
from benchmarks.harness import record
from benchmarks.harness.statistics import Interval
from optax_dtnh import plain
from tests.core.helpers import dot, minus, norm

DIGITS = data.load()
BY_NAME = {method.name: method for method in digits.METHODS}


def rows(images):
    """The pixels of every image as a hashable row."""
    return [tuple(row) for row in images.pixels.tolist()]


# Data


@pytest.mark.parametrize("seed", [0, 1, 19])
def test_source_target_and_test_images_are_disjoint(seed):
    pool, task = data.source_pool(DIGITS, seed), data.task(DIGITS, seed, shots=10)
    everything = rows(pool) + rows(task.target) + rows(task.test)
    assert len(everything) == 800 + 100 + 700
    assert len(set(rows(DIGITS))) == len(DIGITS.labels)
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("shots", [5, 10])
@pytest.mark.parametrize("seed", range(20))
def test_the_target_has_the_same_number_of_images_of_every_class(seed, shots):
    target = data.task(DIGITS, seed, shots).target
    np.testing.assert_array_equal(np.bincount(target.labels), np.full(10, shots))


def test_another_seed_draws_other_images_and_the_same_seed_the_same():
    assert rows(data.source_pool(DIGITS, 0)) == rows(data.source_pool(DIGITS, 0))
    assert rows(data.source_pool(DIGITS, 0)) != rows(data.source_pool(DIGITS, 1))


def test_more_shots_keep_the_test_set_and_add_to_the_target():
    few, many = data.task(DIGITS, 3, shots=5), data.task(DIGITS, 3, shots=10)
    np.testing.assert_array_equal(few.test.pixels, many.test.pixels)
    assert set(rows(few.target)) < set(rows(many.target))


def test_more_shots_than_images_are_refused():
    with pytest.raises(ValueError, match="`shots` should be at most [0-9]+ with this seed, got 99"):
        data.task(DIGITS, 0, shots=99)


def test_label_noise_redraws_about_the_share_asked_for():
    labels = data.Images(DIGITS.pixels, DIGITS.labels)
    changed = data.redraw_labels(labels, 0.4, seed=0).labels != labels.labels
    assert abs(changed.mean() - 0.4 * 0.9) < 0.03  # a tenth of the new labels are the old ones


def test_no_label_noise_changes_no_label():
    np.testing.assert_array_equal(data.redraw_labels(DIGITS, 0.0, seed=0).labels, DIGITS.labels)


def test_rotation_turns_the_images_and_keeps_their_labels():
    pool = data.source_pool(DIGITS, 0)
    turned = data.spoiled(digits.ROTATED, pool, 0)
    np.testing.assert_array_equal(turned.labels, pool.labels)
    first, first_turned = pool.pixels[0].reshape(8, 8), turned.pixels[0].reshape(8, 8)
    np.testing.assert_array_equal(np.rot90(first), first_turned)
    assert not np.array_equal(first, first_turned)


def test_shuffled_labels_are_the_same_labels_on_other_images():
    pool = data.source_pool(DIGITS, 0)
    shuffled = data.spoiled(digits.SHUFFLED, pool, 0)
    np.testing.assert_array_equal(np.sort(shuffled.labels), np.sort(pool.labels))
    np.testing.assert_array_equal(shuffled.pixels, pool.pixels)
    assert np.mean(shuffled.labels == pool.labels) < 0.2


# Checkpoints


@pytest.fixture
def params():
    return network.init(jax.random.key(0))


@pytest.fixture
def saved(params, tmp_path):
    path = tmp_path / "source.safetensors"
    checkpoint.save(path, params)
    return path


def edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_a_checkpoint_gives_back_every_bit(params, saved):
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load(saved, params), params)


def test_a_checkpoint_has_torchs_names_and_layout(params, saved):
    tensors = load_file(saved)
    assert {name: x.shape for name, x in tensors.items()} == {
        "fc1.weight": (128, 64),
        "fc1.bias": (128,),
        "fc2.weight": (16, 128),
        "fc2.bias": (16,),
        "head.weight": (10, 16),
        "head.bias": (10,),
    }
    np.testing.assert_array_equal(tensors["fc1.weight"], np.asarray(params["fc1"]["kernel"]).T)


def test_shapes_alone_are_enough_to_load(params, saved):
    like = jax.eval_shape(network.init, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load(saved, like), params)


def test_a_missing_and_an_unexpected_tensor_are_named(params, saved):
    edit(saved, lambda tensors: tensors.update({"fc3.bias": tensors.pop("fc2.bias")}))
    with pytest.raises(ValueError, match=r"missing \['fc2.bias'\], unexpected \['fc3.bias'\]"):
        checkpoint.load(saved, params)


def test_a_tensor_of_another_shape_is_named(params, saved):
    def transpose(tensors):
        tensors["fc1.weight"] = np.ascontiguousarray(tensors["fc1.weight"].T)

    edit(saved, transpose)
    wrong = r"fc1.weight is float32\[64, 128\] instead of float32\[128, 64\]"
    with pytest.raises(ValueError, match=wrong):
        checkpoint.load(saved, params)


def test_a_tensor_of_another_dtype_is_named(params, saved):
    edit(saved, lambda tensors: tensors.update({"fc1.bias": np.zeros(128, np.float16)}))
    with pytest.raises(ValueError, match=r"fc1.bias is float16\[128\] instead of float32\[128\]"):
        checkpoint.load(saved, params)


# Methods


@pytest.fixture
def batch():
    target = data.task(DIGITS, 0, shots=5).target
    return jnp.asarray(target.pixels), jnp.asarray(target.labels)


@pytest.fixture
def in_conflict(params, batch):
    """Parameters a little down the loss from the source, where the regularizers pull back up."""
    g = loss_gradient(params, params, *batch)
    return jax.tree.map(lambda w, x: w - 0.1 * x, params, g)


def first_update(method: Method, params, source, batch) -> tuple[Any, Any]:
    """The first update of an optimizer that was initialized at the source."""
    tx = method.optimizer(1.0)
    return tx.update(method.gradients(params, source, *batch), tx.init(source), params)


def backbone(tree):
    return {name: tree[name] for name in ("fc1", "fc2")}


@pytest.mark.parametrize("name", ["L2-SP", "KnowDist"])
def test_the_methods_of_one_regularizer_are_built_alike_but_for_the_rule(name):
    without, with_dtnh = BY_NAME[name], BY_NAME[f"{name} + DTNH"]
    assert without.gradients is with_dtnh.gradients
    optimizer, same_optimizer = without.optimizer, with_dtnh.optimizer
    assert isinstance(optimizer, functools.partial)
    assert isinstance(same_optimizer, functools.partial)
    assert optimizer.func is same_optimizer.func
    assert (optimizer.keywords, same_optimizer.keywords) == ({"rule": plain}, {"rule": None})
    assert with_dtnh.baseline == without.name


@pytest.mark.parametrize("name", ["L2-SP", "KnowDist"])
def test_dtnh_changes_an_update_along_the_loss_gradient_and_never_in_the_head(
    name, params, in_conflict, batch
):
    g = loss_gradient(in_conflict, params, *batch)
    without, _ = first_update(BY_NAME[name], in_conflict, params, batch)
    with_dtnh, state = first_update(BY_NAME[f"{name} + DTNH"], in_conflict, params, batch)
    assert optax.tree.get(state, "conflict") == 1
    jax.tree.map(np.testing.assert_array_equal, without["head"], with_dtnh["head"])
    change = jax.tree.map(jnp.subtract, backbone(with_dtnh), backbone(without))
    cosine = dot(change, backbone(g)) / (norm(change) * norm(backbone(g)))
    assert cosine == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("name", ["L2-SP", "KnowDist"])
def test_at_the_source_itself_dtnh_changes_nothing(name, params, batch):
    without, _ = first_update(BY_NAME[name], params, params, batch)
    with_dtnh, state = first_update(BY_NAME[f"{name} + DTNH"], params, params, batch)
    assert optax.tree.get(state, "conflict") == 0
    jax.tree.map(np.testing.assert_array_equal, without, with_dtnh)


# The whole benchmark, small


def run(out):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        digits.main(["--seeds", "2", "--weights", "10", "--out", str(out)])
    return record.read(out / "digits.json"), printed.getvalue()


@pytest.fixture(scope="module")
def quick_to_compile():
    """Two seeds run faster than their programs are optimized."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)


@pytest.fixture(scope="module")
def small(tmp_path_factory, quick_to_compile):
    out = tmp_path_factory.mktemp("digits")
    return out, *run(out)


def test_a_run_writes_its_record_table_figure_and_source_networks(small):
    out, results, _ = small
    assert (out / "digits.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "digits.md").read_text().startswith(table.markdown(results))
    assert sorted(path.name for path in (out / "sources").iterdir()) == sorted(
        f"{source}-{seed:02d}.safetensors"
        for source in ("same", "rot90", "permlab")
        for seed in (0, 1)
    )


def test_a_run_records_every_number_of_every_seed(small):
    _, results, _ = small
    assert len(results["runs"]) == len(digits.CELLS) * len(digits.METHODS)
    for entry in results["runs"]:
        assert len(entry["accuracy"]) == len(entry["training_loss"]) == 2
        assert all(0 <= accuracy <= 100 for accuracy in entry["accuracy"])
        assert (entry["conflict"] is None) == (entry["method"] == "fine-tuning")


def test_a_run_prints_the_table_and_what_dtnh_changes(small):
    _, results, printed = small
    for part in (table.text, table.summary, table.note):
        assert part(results) in printed


def test_networks_learn_the_digits_they_are_fine_tuned_on(small):
    _, results, _ = small
    assert record.values(results, "same", "fine-tuning", None, "accuracy").min() > 85


def test_dtnh_lowers_the_training_loss_that_an_inappropriate_source_costs(small):
    _, results, _ = small
    for name in ("L2-SP", "KnowDist"):
        without = record.values(results, "rot90", name, 10, "training_loss")
        with_dtnh = record.values(results, "rot90", f"{name} + DTNH", 10, "training_loss")
        assert (with_dtnh < 0.7 * without).all()


def test_a_second_run_gives_the_same_numbers(small, tmp_path):
    _, results, _ = small
    again, _ = run(tmp_path)
    assert again["runs"] == results["runs"]
    differing = {key for key in results if results[key] != again[key]}
    assert differing <= {"seconds", "environment"}


def test_the_record_names_no_path_and_no_machine(small):
    out, results, _ = small
    assert str(out) not in json.dumps(results)
    assert "/" not in json.dumps(results["environment"])


# Options


@pytest.mark.parametrize(
    "bad",
    [
        ["--seeds", "0"],
        ["--seeds", "-3"],
        ["--seeds", "1.5"],
        ["--seeds", "101"],
        ["--weights", "0"],
        ["--weights", "-1"],
        ["--weights", "nan"],
        ["--weights", "inf"],
        ["--weights", "1e9"],
        ["--weights", "much"],
        ["--weights"],
        ["--weights", "1", "1.0"],
        ["--out", "a_file"],
        ["--out", "a_file/below"],
        ["--seed", "3"],
    ],
    ids=" ".join,
)
def test_bad_options_are_refused_in_one_line_with_nothing_written(
    bad, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("kept")
    with pytest.raises(SystemExit) as refusal:
        digits.main(["--out", "out", *bad])
    printed = capsys.readouterr()
    assert refusal.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]
    assert (tmp_path / "a_file").read_text() == "kept"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (["--seeds", "0"], "`--seeds` should be a whole number from 1 to 100, got '0'."),
        (["--weights", "0"], "`--weights` should be numbers from 1e-06 to 1e+06, got '0'."),
        (["--weights", "1", "1.0"], "`--weights` should be different numbers, got 1 1."),
        (["--out", "a_file"], "`--out` should be a folder that can be written to, got 'a_file'."),
    ],
)
def test_a_refusal_says_what_was_expected_and_given(bad, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    with pytest.raises(SystemExit):
        digits.main(bad)
    assert reason in capsys.readouterr().err


def test_help_shows_the_question_and_the_options(capsys):
    with pytest.raises(SystemExit) as done:
        digits.main(["--help"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    for expected in (str(digits.__doc__).splitlines()[0], "--seeds N", "--weights W", "--out DIR"):
        assert expected in printed


# Tables and figures


def results_of(by_method, weights=(10.0,)):
    """Results of one cell with the given accuracies by method and seed."""
    regularizer = {"fine-tuning": None, "L2-SP": "L2-SP", "L2-SP + DTNH": "L2-SP"}
    baseline = {"L2-SP + DTNH": "L2-SP"}
    cell = {"name": "rot90", "title": "rotated", "source": "rot90", "shots": 5, "noise": 0.0}
    return {
        "reference": "fine-tuning",
        "cells": [cell],
        "methods": [
            {"name": m, "regularizer": regularizer[m], "baseline": baseline.get(m)}
            for m in by_method
        ],
        "weights": list(weights),
        "seeds": list(range(len(by_method["fine-tuning"]))),
        "runs": [
            {
                "cell": "rot90",
                "method": m,
                "weight": weight if regularizer[m] else None,
                "accuracy": accuracy,
                "training_loss": [0.25] * len(accuracy),
                "conflict": [0.5] * len(accuracy) if regularizer[m] else None,
            }
            for m, accuracy in by_method.items()
            for weight in (weights if regularizer[m] else [None])
        ],
    }


THREE_SEEDS = {
    "fine-tuning": [80.0, 81.0, 82.0],
    "L2-SP": [50.0, 60.0, 70.0],
    "L2-SP + DTNH": [61.0, 71.0, 82.0],
}
ONE_SEED = {method: accuracy[:1] for method, accuracy in THREE_SEEDS.items()}


def test_the_compact_table_shows_without_with_and_the_paired_difference():
    # Differences 11, 11, 12: mean 11.33, standard deviation 0.577, t(0.975, df=2) = 4.303.
    assert table.markdown(results_of(THREE_SEEDS)).splitlines() == [
        "| method, weight | rotated |",
        "| --- | --- |",
        "| fine-tuning | 81.0 |",
        "| L2-SP + DTNH, 10 | 60.0 → 71.3 (**+11.3 ± 1.4**) |",
    ]


def test_the_full_table_compares_with_the_plain_regularizer_and_with_fine_tuning():
    lines = table.text(results_of(THREE_SEEDS)).splitlines()
    assert lines[0] == "rotated: 5 target images per class"
    # Differences to fine-tuning -19, -10, 0: mean -9.67, standard deviation 9.50.
    assert lines[-1].split("  ")[1] == "L2-SP + DTNH"
    for expected in ("71.3 ± 26.1", "+11.3 ± 1.4", "-9.7 ± 23.6", "0.250", "50 %"):
        assert expected in lines[-1]


def test_one_seed_is_shown_without_an_interval():
    results = results_of(ONE_SEED)
    assert "50.0 → 61.0 (+11.0 ± n/a)" in table.markdown(results)
    assert "no interval (+11.0 ± n/a)" in table.summary(results)


def test_a_diverged_run_is_called_so():
    results = results_of(THREE_SEEDS)
    results["runs"][-1]["training_loss"] = record.numbers([0.5, np.nan, np.inf])
    assert "diverged" in table.text(results).splitlines()[-1]


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Interval(2.0, 0.5), "gains 2.0 ± 0.5 points"),
        (Interval(-2.0, 0.5), "loses 2.0 ± 0.5 points"),
        (Interval(-0.2, 0.5), "no clear change (-0.2 ± 0.5)"),
    ],
)
def test_the_words_follow_the_interval(difference, words):
    assert table.verdict(difference) == words


@pytest.mark.parametrize("weights", [(10.0,), (0.3, 5.0), (0.01, 0.1, 1.0, 10.0)])
@pytest.mark.parametrize("accuracies", [ONE_SEED, THREE_SEEDS], ids=["one seed", "three seeds"])
def test_the_figure_has_a_panel_per_regularizer_and_cell_for_any_weights(
    weights, accuracies, tmp_path
):
    drawn = figure.draw(results_of(accuracies, weights), "Why?")
    (panel,) = drawn.axes
    assert panel.get_title() == "rotated"
    assert panel.get_ylabel() == "L2-SP\ntest accuracy, %"
    difference = "+11.0 ± n/a" if accuracies is ONE_SEED else "+11.3 ± 1.4"
    assert [text.get_text() for text in panel.texts] == [f"at {weights[-1]:g}: {difference} points"]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == [f"{w:g}" for w in weights]
    drawn.savefig(tmp_path / "figure.png")


def test_a_run_that_does_not_exist_is_asked_for_by_name():
    with pytest.raises(KeyError, match="should hold a run of 'KnowDist' on 'rot90' at weight 10"):
        record.values(results_of(THREE_SEEDS), "rot90", "KnowDist", 10, "accuracy")


# Where the record comes from


def git(root, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def test_the_record_has_the_commit_and_whether_files_differ_from_it(tmp_path):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "start")
    clean = record.git_state(tmp_path)
    (tmp_path / "new").touch()
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    assert record.git_state(tmp_path) == {"commit": clean["commit"], "dirty": True}


def test_a_copy_inside_somebody_elses_repository_has_no_commit(tmp_path):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "start")
    (tmp_path / "copy").mkdir()
    assert record.git_state(tmp_path / "copy") == {"commit": None, "dirty": None}


def test_a_written_record_is_read_back_as_it_was(tmp_path):
    results = results_of(THREE_SEEDS)
    record.write(tmp_path / "results.json", results)
    assert record.read(tmp_path / "results.json") == results


# The head


@pytest.mark.parametrize("name", ["L2-SP", "KnowDist"])
def test_the_head_left_in_shares_the_correction_and_left_out_gets_the_plain_update(
    name, params, in_conflict, batch
):
    out, left_in = (m for m in head.METHODS if m.regularizer == name)
    assert left_in.baseline == out.name
    assert norm(left_in.gradients(in_conflict, params, *batch).reg_grads["head"]) == 0
    plainly, with_out, with_in = (
        first_update(method, in_conflict, params, batch)[0]
        for method in (BY_NAME[name], out, left_in)
    )
    assert norm(minus(with_out["head"], plainly["head"])) == 0
    assert norm(minus(with_in["head"], plainly["head"])) > 0
    taken = [norm(minus(backbone(u), backbone(plainly))) for u in (with_out, with_in)]
    assert 0 < taken[1] < taken[0]
