"""Checkpoints: whatever happens to process, disk or file, what is restored is what was saved."""

import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections import namedtuple
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from optax_dtnh import add_l2_sp
from optax_dtnh.finetune import checkpoints, run_folder
from optax_dtnh.finetune.checkpoints import CHECKSUMS, opened
from optax_dtnh.finetune.errors import UsageError
from tests.core.helpers import assert_equal
from tests.finetune.pictures import flip, halve
from tests.finetune.runs import ROOT

STAGES = {
    "before Orbax's metadata": (checkpoints.ocp.StandardCheckpointHandler, "finalize"),
    "before Orbax's commit": (checkpoints.ocp.path.atomicity.AtomicRenameTemporaryPath, "finalize"),
    "before old ones are removed": (checkpoints.ocp.CheckpointManager, "_finalize"),
    "before the checksums": (checkpoints, "_checksums"),
    "before the checksums have their name": (run_folder.os, "replace"),
}


class Killed(BaseException):
    """As good as a SIGKILL, which no handler sees either."""


def over(*axes, shape=(4,), names=("d",)):
    return NamedSharding(jax.make_mesh(shape, names), P(*axes))


def simple(step):
    rng = np.random.default_rng(step)
    return {"w": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32), "n": jnp.asarray(step)}


def abstract(tree, sharding=None):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), tree
    )


def save(folder, *steps, state=simple):
    with opened(folder) as manager:
        for step in steps:
            checkpoints.save(manager, step, state(step))


def restored(folder, like=None):
    with opened(folder) as manager:
        return checkpoints.restore_latest(manager, abstract(simple(0) if like is None else like))


def assert_step(folder, step):
    assert_equal(restored(folder), simple(step))


def resume(folder, step):
    """Restore the checkpoint of this step, and save step 4, as a run does that is started again."""
    with opened(folder) as manager:
        state = checkpoints.restore_latest(manager, abstract(simple(0)))
        assert_equal(state, simple(step))
        checkpoints.save(manager, 4, simple(4))
    assert names(folder) == [f"step_{step}", "step_4"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def two(folder):
    """A folder with checkpoints of the steps 1 and 2."""
    save(folder, 1, 2)
    return folder


def test_a_training_state_comes_back_with_its_types_and_bits(folder):
    tx = optax.chain(add_l2_sp(0.1, reference=optax.ema(0.9)), optax.trace(0.9), optax.sgd(0.1))
    params = {"a.b": jnp.ones((3, 2)), "a": {"b": jnp.full(2, 1 / 3, jnp.bfloat16)}}
    state = tx.update(params, tx.init(params), params)[1], params, (None, {}, optax.EmptyState())
    save(folder, 7, state=lambda _: state)
    assert_equal(restored(folder, (tx.init(params), params, state[2])), state)


def test_a_sharded_state_comes_back_in_another_sharding(folder):
    values = jnp.arange(32, dtype=jnp.float32).reshape(8, 4)
    state = {"a": jax.device_put(values, over("d")), "b": jax.device_put(values, over())}
    save(folder, 1, state=lambda _: state)
    square = over("y", "x", shape=(2, 2), names=("x", "y"))
    shardings = {"a": square, "b": over(None, "d")}
    found = restored(folder, {name: abstract(state[name], shardings[name]) for name in state})
    assert_equal(found, state)
    assert {name: x.sharding for name, x in found.items()} == shardings


def test_the_two_newest_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert restored(Path("here")) is None
    save(Path("here"), 0, 5, 10, 15)
    assert names(tmp_path / "here") == ["step_10", "step_15"]
    assert_step(Path("here"), 15)


def empty(path):
    os.truncate(path, 0)


def test_every_kind_of_damage_in_every_file_is_found(two):
    newest, like = two / "step_2", simple(0)
    files = [path for path in newest.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert checkpoints._problem(newest, like) is None
    for path in files:
        content = path.read_bytes()
        for damage in (halve, empty, flip, *([] if path.name == CHECKSUMS else [Path.unlink])):
            damage(path)
            assert checkpoints._problem(newest, like), (path, damage)
            path.write_bytes(content)
    (newest / "new").write_text("")
    assert checkpoints._problem(newest, like) == "new has changed"


def test_a_damaged_checkpoint_is_skipped_with_a_word_and_replaced(two, capsys):
    flip(two / "step_2" / "default" / "_METADATA")
    assert_step(two, 1)
    text = "Skipped the damaged checkpoint of step 2 (default/_METADATA has changed)."
    assert text in capsys.readouterr().err
    assert names(two) == ["step_1"]
    save(two, 2, 3)
    assert_step(two, 3)


def test_all_damaged_is_an_error_and_nothing_is_removed(two):
    for path in two.rglob("_METADATA"):
        halve(path)
    before = {path: path.read_bytes() for path in two.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="can be restored, got none in .*step 2 .*st"):
        restored(two)
    assert {path: path.read_bytes() for path in two.rglob("*") if path.is_file()} == before


AB = namedtuple("AB", ("a", "b"), defaults=(None,))
BA = namedtuple("BA", ("b", "a"))
W = jnp.ones((3, 2))


@pytest.mark.parametrize(
    ("saved", "like", "difference"),
    [
        (AB(W), AB(W.astype("bfloat16")), r"float32\[3, 2\] at .a instead of bfloat16"),
        (AB(W), AB(W.T), r".a instead of float32\[2, 3\]"),
        (AB(W), AB(None), r"float32\[3, 2\] at .a instead of None"),
        (AB(W), AB(W, W), r"None at .b instead of float32\[3, 2\]"),
        (AB(W, W), BA(W, W), "the leaves in another order"),
    ],
)
def test_other_leaves_are_an_error_that_names_them(folder, saved, like, difference):
    save(folder, 1, state=lambda _: saved)
    with pytest.raises(UsageError, match=difference):
        restored(folder, like)


@pytest.mark.parametrize("leftover", ["empty", "no checksums", "Orbax's"])
def test_unfinished_checkpoints_are_skipped_silently_and_removed(two, leftover, capsys):
    path = two / "step_3"
    if leftover == "empty":
        path.mkdir()
    else:
        shutil.copytree(two / "step_2", path)
        (path / CHECKSUMS).unlink()
    if leftover == "Orbax's":
        path.rename(two / "step_3.orbax-checkpoint-tmp")
    resume(two, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_of_a_save_the_one_before_is_restored(two, stage, monkeypatch):
    def kill(*args, **kwargs):
        raise Killed

    module, name = STAGES[stage]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, kill)
        with pytest.raises(Killed):
            save(two, 3)
    resume(two, 2)


def test_one_is_due_every_minute_or_so_that_saving_takes_a_twentieth_of_the_time(monkeypatch):
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: 100.0)
    assert [checkpoints.due(took) for took in (0.0, 2.9, 5.0)] == [160, 160, 200]


FULL = """
import resource, signal, sys
from pathlib import Path
from tests.finetune.test_checkpoints import UsageError, assert_step, names, save
folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save(folder, 1)
for size in (0, 300, 3000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        save(folder, 2)
    except UsageError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert_step(folder, 1)
save(folder, 2)
assert_step(folder, 2)
assert names(folder) == ["step_1", "step_2"]
"""


def test_a_full_disk_is_noticed_before_anything_is_written(two, monkeypatch):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: Namespace(free=1000))
    with pytest.raises(UsageError, match=r"does not take step_3 \(No space left on device\)"):
        save(two, 3)
    assert names(two) == ["step_1", "step_2"]


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_stays(folder):
    command = [sys.executable, "-W", "error", "-c", FULL, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert all("does not take step_2 (File too large). Make room and run" in line for line in lines)
