"""The fine-tuning command at a small size: every method, resumption, devices, errors."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from optax_dtnh import regularizers
from optax_dtnh.finetune import __main__ as finetune
from optax_dtnh.finetune import export, identity, loop, methods, opening, options, report, step
from optax_dtnh.finetune.batches import TrainingBatches
from optax_dtnh.finetune.examples import Selected
from optax_dtnh.finetune.sources import open_data
from optax_dtnh.models import Basic, ResNet, ViT, backbone_mask, resnet18, save_pretrained, vit_tiny
from tests.finetune.runs import ROOT, SMALL, accuracy_in, run, weights, write_digits, write_source

WITH_A_TEACHER = ("feature_distance", "distillation", "delta")


@pytest.fixture(scope="module", autouse=True)
def _compile_once(tmp_path_factory, quickly_compiled):
    """Keep compiled programs for the runs that share them."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    settings = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source") / "resnet.safetensors")


@pytest.fixture(scope="session")
def vit(tmp_path_factory):
    model = ViT(64, blocks=2, image_size=32, classes=3, rngs=nnx.Rngs(0))
    path = tmp_path_factory.mktemp("source") / "vit.safetensors"
    save_pretrained(model, path)
    return path


@pytest.fixture(scope="session")
def arguments(digits, source):
    return ["--source", str(source), "--data", str(digits), *SMALL]


@pytest.fixture(scope="session")
def finished(arguments, tmp_path_factory):
    """From a method to the folder of a finished run, made when it is first asked for."""
    folders = {}

    def finished_run(method):
        if method not in folders:
            folders[method] = tmp_path_factory.mktemp("runs") / method
            run(*arguments, "--method", method, out=folders[method])
        return folders[method]

    return finished_run


def settings_of(*argv):
    given = ["--source", "s", "--data", "d", "--out", "o", *argv]
    return options.parse(options.parser(None), given)[1]


def printed_error(*argv):
    """The one line on stderr of a command that exits with code 2."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as exit_info:
        finetune.main([str(argument) for argument in argv])
    assert exit_info.value.code == 2
    (line,) = stderr.getvalue().splitlines()
    return line


# --- what a run leaves


def test_a_run_leaves_what_people_keep(finished):
    out = finished("l2_sp+dtnh")
    names = {path.name for path in out.iterdir()}
    assert names == {
        "checkpoints",
        "figure.png",
        "labels.json",
        "log.jsonl",
        "model.safetensors",
        "preprocessing.json",
        "settings.json",
        "summary.json",
    }
    assert json.loads((out / "labels.json").read_text()) == [str(i) for i in range(10)]
    assert json.loads((out / "preprocessing.json").read_text())["image_size"] == 32
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_has_every_setting_the_versions_and_the_accuracy(finished):
    summary = json.loads((finished("l2_sp+dtnh") / "summary.json").read_text())
    assert set(options.Settings._fields) == summary["settings"].keys()
    assert summary["settings"]["weight"] == 0.01
    assert summary["settings"]["rule"] == "truncate"
    assert summary["settings"]["form"] == "before"
    assert summary["environment"]["jax"] == jax.__version__
    assert summary["found"]["train_images"] == 40
    assert 0 <= summary["test_accuracy"] <= 1
    assert 0 < summary["conflict"] <= 1


def test_training_learns(arguments, tmp_path):
    run(*arguments, "--steps", "60", "--log-every", "10", "--save-every", "60", out=tmp_path / "a")
    losses = [entry["loss"] for entry in report.entries(tmp_path / "a/log.jsonl")]
    assert losses[-1] < 0.85 * losses[0]


def test_a_fresh_process_evaluates_to_the_logged_accuracy(finished):
    out = finished("l2_sp+dtnh")
    command = [sys.executable, "-m", "optax_dtnh.finetune", "--out", out, "--evaluate"]
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiled as here
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    assert (
        accuracy_in(done.stdout) == json.loads((out / "summary.json").read_text())["test_accuracy"]
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_predictions_reproduce_the_logged_accuracy(finished, arguments, digits, tmp_path, dtype):
    out = finished("l2_sp+dtnh") if dtype == "float32" else tmp_path / "run"
    run(*arguments, "--dtype", dtype, out=out)
    test = open_data(str(digits), train_per_class=4, seed=0).test
    examples = [test[i] for i in range(len(test))]
    lines = run("--predict", *(x["name"] for x in examples), out=out).splitlines()
    labels = [line.split("\t")[1] for line in lines]
    right = [label == str(x["label"]) for label, x in zip(labels, examples, strict=True)]
    logged = json.loads((out / "summary.json").read_text())["test_accuracy"]
    assert sum(right) / len(right) == logged


def test_what_is_seen_in_an_image_does_not_depend_on_those_beside_it(finished, digits):
    out, names = finished("l2_sp+dtnh"), sorted((digits / "3").iterdir())[:3]
    together = run("--predict", *names, out=out).splitlines()
    assert together[0] == run("--predict", names[0], out=out).strip()


def test_what_fills_the_last_batch_up_does_not_count(finished, digits):
    trained = export.read(finished("l2_sp+dtnh"))
    test = open_data(str(digits), train_per_class=4, seed=0).test
    seen = export.predictions(trained, [Path(test[i]["name"]) for i in range(len(test))])
    right = [x.label == str(test[i]["label"]) for i, x in enumerate(seen)]
    for hit in (True, False):
        three = tuple(np.flatnonzero(np.equal(right, hit))[:3].tolist())
        assert export.accuracy(trained, Selected(test, three)) == hit


def test_how_often_is_logged_changes_no_mean_and_no_weight(finished, arguments, tmp_path):
    run(*arguments, "--log-every", "5", out=tmp_path / "run")
    (one,) = report.entries(tmp_path / "run/log.jsonl")
    parts = report.entries(finished("l2_sp+dtnh") / "log.jsonl")
    for name in ("loss", "accuracy", "conflict"):
        mean = np.average([entry[name] for entry in parts], weights=[2, 2, 1])
        np.testing.assert_allclose(one[name], mean, rtol=1e-5)
    files = [out / "model.safetensors" for out in (finished("l2_sp+dtnh"), tmp_path / "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_finished_run_says_so_and_does_nothing(finished, arguments):
    out = finished("l2_sp+dtnh")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert "is finished" in run(*arguments, "--method", "l2_sp+dtnh", out=out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_vit_is_tuned_as_well(arguments, vit, tmp_path):
    out = tmp_path / "run"
    run(*arguments, "--source", str(vit), "--method", "feature_distance+dtnh", out=out)
    assert report.entries(out / "log.jsonl")[-1]["regularizer"] > 0
    model = export.read(out).model
    assert isinstance(model, ViT)
    assert model.head.out_features == 10


def test_broken_images_are_left_out_on_demand(arguments, digits, tmp_path):
    data = tmp_path / "data"
    write_digits(data)
    (data / "3" / "broken.png").write_bytes(b"no image")
    argv = [*arguments, "--data", data, "--out", tmp_path / "run"]
    assert "broken.png" in printed_error(*argv)
    assert not (tmp_path / "run").exists()
    assert ", 1 broken one left out; " in run(*argv, "--skip-broken", out=tmp_path / "run")


# --- methods


@pytest.mark.parametrize("method", options.METHODS)
def test_every_method_runs(finished, method):
    log = report.entries(finished(method) / "log.jsonl")
    assert [entry["step"] for entry in log] == [2, 4, 5]
    name = method.removesuffix("+dtnh")
    for entry in log:
        assert np.isfinite(entry["loss"])
        assert (entry["regularizer"] is None) == (name in ("finetune", "l2_sp"))
        assert (entry["conflict"] is None) == (name == "finetune")


def first_step(arguments, out, *argv):
    run(*arguments, "--steps", "1", "--log-every", "1", *argv, out=out)
    (entry,) = report.entries(out / "log.jsonl")
    return entry


def test_at_the_start_l2_sp_does_not_pull_so_there_is_no_conflict(arguments, tmp_path):
    assert first_step(arguments, tmp_path / "run", "--method", "l2_sp")["conflict"] == 0


def test_maps_are_compared_with_those_of_the_pretrained_network_in_evaluation(arguments, tmp_path):
    """At the start the networks are the same: in the same mode their distance would be 0."""
    entry = first_step(arguments, tmp_path / "run", "--method", "feature_distance")
    assert entry["regularizer"] > 1


@pytest.mark.parametrize("name", options.PUBLISHED_WEIGHTS)
def test_dtnh_changes_the_weights_where_gradients_conflict(finished, name):
    plain, protected = finished(name), finished(name + "+dtnh")
    assert json.loads((plain / "summary.json").read_text())["conflict"] > 0
    assert weights(plain).keys() == weights(protected).keys()
    assert any((weights(plain)[k] != weights(protected)[k]).any() for k in weights(plain))


def test_a_form_is_run_and_recorded(arguments, tmp_path):
    argv, out = [*arguments, "--method", "l2_sp+dtnh"], tmp_path / "run"
    run(*argv, "--form", "momentum", out=out)
    assert json.loads((out / "settings.json").read_text())["settings"]["form"] == "momentum"
    assert report.entries(out / "log.jsonl")[-1]["conflict"] is not None
    assert "form was" in printed_error(*argv, "--out", out)


def parameters(model):
    return nnx.as_pure(nnx.state(model, nnx.Param))


@pytest.mark.parametrize("method", ["l2_sp", "feature_distance+dtnh"])
def test_the_head_is_not_regularized_but_decays(method):
    params = parameters(ResNet((1,), Basic, width=8, classes=3, rngs=nnx.Rngs(0)))
    settings = settings_of("--method", method, "--weight", "7", "--head-decay", "0.5")
    tx = methods.transformation(settings)
    moved = jax.tree.map(lambda x: x + 1, params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    reg_grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(zeros, tx.init(params), moved, reg_grads=reg_grads)
    for update, w, backbone in zip(
        *map(jax.tree.leaves, (updates, moved, backbone_mask(params))), strict=True
    ):
        expected = jnp.full_like(w, -0.01 * 7) if backbone else -0.01 * 0.5 * w
        np.testing.assert_allclose(update, expected, rtol=1e-6)


def test_finetune_decays_everything():
    params = parameters(ResNet((1,), Basic, width=8, classes=3, rngs=nnx.Rngs(0)))
    tx = methods.transformation(settings_of("--method", "finetune", "--weight-decay", "0.5"))
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    for update, w in zip(*map(jax.tree.leaves, (updates, params)), strict=True):
        np.testing.assert_allclose(update, -0.01 * 0.5 * w, rtol=1e-6)


@pytest.mark.parametrize("name", options.PUBLISHED_WEIGHTS)
def test_only_some_methods_run_the_teacher(arguments, tmp_path, name):
    argv = [*arguments, "--method", name, "--out", str(tmp_path / "run")]
    opened = opening.open_run(options.parse(options.parser(None), argv)[1])
    assert (loop.teacher_of(opened) is not None) == (name in WITH_A_TEACHER)


def test_the_network_and_its_images_are_as_the_checkpoint_and_the_options_want(
    arguments, source, tmp_path
):
    copied = shutil.copy(source, tmp_path)
    how = {"image_size": 48, "mean": [0.5, 0.4, 0.3], "interpolation": "bicubic"}
    (tmp_path / "preprocessing.json").write_text(json.dumps(how))
    argv = [*arguments, "--source", copied, "--dtype", "bfloat16", "--out", str(tmp_path / "run")]
    opened = opening.open_run(options.parse(options.parser(None), argv)[1])
    assert opened.preprocessing.mean == (0.5, 0.4, 0.3)
    assert opened.preprocessing.interpolation == "bicubic"
    assert (opened.preprocessing.image_size, opened.preprocessing.resize) == (32, 36)
    assert jnp.dtype(opened.source.head.dtype) == jnp.bfloat16
    assert opened.source.head.kernel.dtype == jnp.float32


def test_the_new_head_is_of_the_seed(arguments, tmp_path):
    kernels = []
    for seed in ("0", "0", "1"):
        argv = [*arguments, "--seed", seed, "--out", str(tmp_path / "run")]
        opened = opening.open_run(options.parse(options.parser(None), argv)[1])
        kernels.append(np.asarray(loop.with_new_head(opened).head.kernel))
    assert (kernels[0] == kernels[1]).all()
    assert (kernels[0] != kernels[2]).any()


def test_the_published_reductions_are_those_of_the_page():
    f, f_s = jax.random.normal(jax.random.key(0), (2, 4, 3, 3, 5))
    ours, theirs = (methods.Outputs({"a": x}, x.mean((1, 2)), None) for x in (f, f_s))
    equal = {"a": jnp.full(5, 1 / 5)}
    distance = methods.REGULARIZERS["feature_distance"].function(ours, theirs, None, 2.0)
    np.testing.assert_allclose(distance, 0.5 * np.sum((f - f_s) ** 2), rtol=1e-5)
    delta = methods.REGULARIZERS["delta"].function(ours, theirs, equal, 2.0)
    np.testing.assert_allclose(delta, 0.5 * np.sum((f - f_s) ** 2) / 9, rtol=1e-5)


def test_distillation_has_the_temperature_that_is_asked_for():
    ours, theirs = jax.random.normal(jax.random.key(0), (2, 4, 5))
    given = [methods.Outputs({}, x, x) for x in (ours, theirs)]
    for t in (1.0, 3.0):
        value = methods.REGULARIZERS["distillation"].function(*given, None, t)
        assert value == regularizers.distillation(ours, theirs, temperature=t)


def test_the_learning_rate_is_divided_by_ten_at_two_thirds():
    rate = methods.learning_rate(settings_of("--steps", "90"))
    np.testing.assert_allclose([rate(0), rate(59), rate(60), rate(89)], [0.01, 0.01, 1e-3, 1e-3])
    rate = methods.learning_rate(settings_of("--steps", "90", "--schedule", "cosine"))
    np.testing.assert_allclose([rate(0), rate(45), rate(90)], [0.01, 0.005, 0], atol=1e-9)


def test_layers_are_the_stages_or_every_fourth_part_of_the_blocks():
    resnet = nnx.eval_shape(lambda: resnet18(rngs=nnx.Rngs(0)))
    assert methods.layers(settings_of(), resnet) == ("stage1", "stage2", "stage3", "stage4")
    asked = settings_of("--method", "delta", "--layers", "stage2", "stem")
    assert methods.layers(asked, resnet) == ("stem", "stage2")
    vit = nnx.eval_shape(lambda: vit_tiny(rngs=nnx.Rngs(0)))
    assert methods.layers(settings_of(), vit) == ("block3", "block6", "block9", "block12")


def test_gates_close_channels_where_maps_are_formed():
    network = ResNet((1,), Basic, width=8, classes=3, rngs=nnx.Rngs(0))
    network.eval()
    model = nnx.jit(network)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    logits, features = model(images)
    opened = {"stem": jnp.ones((1, 1, 1, 8)), "stage1": jnp.ones((1, 1, 1, 8))}
    np.testing.assert_allclose(model(images, opened)[0], logits, rtol=1e-6)
    gated, closed = model(images, {"stage1": opened["stage1"].at[..., 2].set(0)})
    assert not closed["stage1"][..., 2].any()
    np.testing.assert_allclose(closed["stem"], features["stem"], rtol=1e-6)
    assert (gated != logits).all()


# --- resumption


def interrupted_after(steps, monkeypatch):
    """Let the next runs stop, as by Ctrl-C, when they ask for one batch more than `steps`."""
    on_devices, calls = step.on_devices, []

    def stop(*args):
        calls.append(args)
        if len(calls) > steps:
            raise KeyboardInterrupt
        return on_devices(*args)

    monkeypatch.setattr(step, "on_devices", stop)
    monkeypatch.setattr(os, "_exit", sys.exit)  # which would end the tests


def without_speed(log):
    return [{k: v for k, v in entry.items() if k != "images_per_second"} for entry in log]


@pytest.mark.parametrize(
    "options_of_method",
    [
        ["--method", "l2_sp+dtnh", "--reference-decay", "0.9"],
        "--method delta+dtnh --form metric --optimizer adam --schedule cosine".split(),
    ],
    ids=["l2_sp", "delta"],
)
def test_a_stopped_run_ends_in_the_same_bits(arguments, tmp_path, monkeypatch, options_of_method):
    argv = [*arguments, *options_of_method, "--steps", "6"]
    run(*argv, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupted_after(3, patch)
        with pytest.raises(SystemExit) as exit_info:
            run(*argv, out=tmp_path / "stopped")
    assert exit_info.value.code == 130
    with (tmp_path / "stopped/log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a line of which only a part was written
    run(*argv, out=tmp_path / "stopped")
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()
    logs = [without_speed(report.entries(file.with_name("log.jsonl"))) for file in files]
    assert logs[0] == logs[1]


def test_resuming_with_other_batches_would_show(finished, arguments, tmp_path, monkeypatch):
    """The control: a run whose position in the data is lost ends in other bits."""
    with monkeypatch.context() as patch:
        interrupted_after(3, patch)
        with pytest.raises(SystemExit):
            run(*arguments, out=tmp_path / "run")
    monkeypatch.setattr(TrainingBatches, "set_state", lambda self, state: None)
    run(*arguments, out=tmp_path / "run")
    before, after = weights(finished("l2_sp+dtnh")), weights(tmp_path / "run")
    assert not np.array_equal(before["conv1.weight"], after["conv1.weight"])


def test_another_seed_ends_in_other_bits(finished, arguments, tmp_path):
    run(*arguments, "--seed", "1", out=tmp_path / "run")
    assert not np.array_equal(
        weights(tmp_path / "run")["conv1.weight"], weights(finished("l2_sp+dtnh"))["conv1.weight"]
    )


# --- devices


@pytest.mark.parametrize(
    ("method", "fsdp"),
    [
        ("feature_distance+dtnh", []),
        ("feature_distance+dtnh", ["--fsdp"]),
        ("l2_sp+dtnh", ["--fsdp"]),
        ("bss", []),
    ],
)
def test_two_devices_give_what_one_gives(finished, arguments, tmp_path, method, fsdp):
    run(*arguments, "--method", method, "--devices", "2", *fsdp, out=tmp_path / "run")
    two, one = weights(tmp_path / "run"), weights(finished(method))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_fsdp_divides_large_arrays_only():
    tree = {"large": jnp.zeros((3, 64, 32)), "small": jnp.zeros(64), "odd": jnp.zeros((63, 33))}
    mesh = step.mesh(4)
    placed = step.shardings(tree, mesh, fsdp=True)
    assert placed["large"].spec == PartitionSpec(None, "batch")
    assert placed["small"].is_fully_replicated
    assert placed["odd"].is_fully_replicated
    whole = step.shardings(tree, mesh, fsdp=False)
    assert all(x.is_fully_replicated for x in jax.tree.leaves(whole))


# --- errors

BAD_ARGUMENTS = {
    "no source given": (["--source", ""], "`--source` should be given"),
    "number": (["--steps", "0"], "--steps: it should be a whole number from 1"),
    "not a number": (["--learning-rate", "fast"], "--learning-rate: it should be a number > 0"),
    "decay": (["--reference-decay", "1"], "above 0 and below 1"),
    "weight": (["--method", "finetune", "--weight", "1"], "`--weight` should come with a regular"),
    "rule": (["--method", "bss", "--rule", "drop"], "`--rule` should come with a method that ends"),
    "distributed": (["--distributed", "host:1"], "`--distributed` should have HOST:PORT"),
    "layers": (["--method", "bss", "--layers", "stem"], "`--layers` should come with"),
    "two at once": (["--evaluate", "--predict", "a"], "should not be given together"),
}
UNFIT = {
    "devices": (["--devices", "9"], "`--devices` should be at most"),
    "batch": (["--devices", "3"], "`--batch-size` should be a multiple"),
    "no source": (["--source", "missing.safetensors"], "`--source` should be an existing file"),
    "no data": (["--data", "missing"], "`--data` should"),
    "no split": (["--train-per-class", "500"], "`--data` should have 501 or more"),
    "sizes": (["--resize", "16"], "`resize` should be at least `image_size`"),
    "layer": (
        ["--method", "delta", "--layers", "conv9"],
        "`--layers` should be among stem, stage1",
    ),
}


@pytest.mark.parametrize("name", [*BAD_ARGUMENTS, *UNFIT])
def test_a_mistake_costs_one_line_and_writes_nothing(arguments, tmp_path, name):
    extra, message = (BAD_ARGUMENTS | UNFIT)[name]
    out = tmp_path / "run"
    line = printed_error(*arguments, "--out", out, *extra)
    assert line.startswith("error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--resize", "72", "--image-size", "64"], "that of the ViT"),
        (["--method", "delta"], "for a ViT"),
    ],
)
def test_what_a_vit_cannot_do_is_said(arguments, vit, tmp_path, extra, message):
    line = printed_error(*arguments, "--source", vit, "--out", tmp_path / "run", *extra)
    assert message in line
    assert not list(tmp_path.iterdir())


def test_the_folder_of_another_run_is_refused(finished, arguments):
    out = finished("l2_sp+dtnh")
    line = printed_error(*arguments, "--out", out, "--seed", "1", "--learning-rate", "0.1")
    assert "learning_rate was 0.01 and is 0.1; seed was 0 and is 1" in line


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (1, "Stopped before the first checkpoint (every 2 steps, `--save-every`)"),
        (3, "Stopped. The same command goes on from the last checkpoint."),
    ],
)
def test_a_stopped_run_says_where_its_command_goes_on(
    arguments, tmp_path, monkeypatch, capsys, steps, said
):
    with monkeypatch.context() as patch:
        interrupted_after(steps, patch)
        with pytest.raises(SystemExit) as exit_info:
            run(*arguments, out=tmp_path / "run")
    assert exit_info.value.code == 130
    assert said in capsys.readouterr().err


def test_a_stopped_prediction_speaks_of_no_checkpoint(finished, monkeypatch, capsys):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "read", stop)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit):
        run("--evaluate", out=finished("l2_sp+dtnh"))
    assert capsys.readouterr().err == "\nStopped.\n"


def test_changed_data_is_refused(arguments, tmp_path, monkeypatch):
    data = write_digits(tmp_path / "data")
    argv = [*arguments, "--data", str(data)]
    with monkeypatch.context() as patch:
        interrupted_after(2, patch)
        with pytest.raises(SystemExit):
            run(*argv, out=tmp_path / "run")
    image, another = next((data / "3").iterdir()), next((data / "4").iterdir())
    image.write_bytes(another.read_bytes())
    line = printed_error(*argv, "--out", tmp_path / "run")
    assert re.search("same source and data.*where data_sha256 was", line)
    image.unlink()
    line = printed_error(*argv, "--out", tmp_path / "run")
    assert re.search("same source and data.*test_images was 160 and is 159", line)


def test_a_folder_that_another_process_runs_in_is_refused(arguments, tmp_path):
    (tmp_path / "run").mkdir()
    with identity.alone(tmp_path / "run"):
        line = printed_error(*arguments, "--out", tmp_path / "run")
    assert "`--out` should be a folder that no other process is running in" in line


def test_a_folder_of_something_else_is_refused(arguments, tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    line = printed_error(*arguments, "--out", tmp_path)
    assert "which holds thesis.txt" in line
    assert "got the file" in printed_error(*arguments, "--out", tmp_path / "thesis.txt")


def test_a_folder_that_cannot_be_made_is_refused(arguments, tmp_path):
    (tmp_path / "file").write_text("")
    line = printed_error(*arguments, "--out", tmp_path / "file" / "run")
    assert "`--out` should be a folder that can be written to" in line


def test_a_diverging_run_is_stopped(arguments, tmp_path):
    line = printed_error(*arguments, "--learning-rate", "1e30", "--out", tmp_path / "run")
    assert "The training loss should stay finite" in line


def test_evaluation_needs_a_finished_run_and_its_classes(finished, digits, tmp_path):
    assert "without settings.json" in printed_error("--evaluate", "--out", tmp_path)
    write_digits(tmp_path / "data", classes=9)
    argv = ["--evaluate", tmp_path / "data", "--out", finished("l2_sp+dtnh")]
    assert "where they differ in 9." in printed_error(*argv)


def test_an_image_that_cannot_be_predicted_is_named(finished, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    reasons = {
        "broken.png": "(cannot identify image file 'broken.png'). Leave it out.",
        "missing.png": "which does not exist. Check the path.",
    }
    for name, reason in reasons.items():
        line = printed_error("--predict", tmp_path / name, "--out", finished("l2_sp+dtnh"))
        assert "`--predict` should name images" in line
        assert f"'{tmp_path / name}'" in line
        assert line.endswith(reason)


def test_errors_that_are_not_ours_keep_their_traceback(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "open_run", lambda settings: np.zeros(2).reshape(3))
    with pytest.raises(ValueError, match="cannot reshape"):
        finetune.main([*arguments, "--out", str(tmp_path / "run")])


@pytest.mark.parametrize(
    ("argv", "unneeded"),
    [
        (["--steps", "0"], {"jax", "numpy"}),
        (["--source", "a.pth", "--data", "missing", "--out", "missing"], {"jax"}),
    ],
    ids=["arguments", "data"],
)
def test_mistakes_do_not_wait_for_jax(argv, unneeded):
    code = (
        "import sys; from benchmarks import finetune\n"
        f"try: finetune.main({argv})\n"
        "except SystemExit as stop: assert stop.code == 2\n"
        f"assert not {unneeded} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
