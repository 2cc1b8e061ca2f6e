"""Checkpoints: whatever happens to process, disk or file, what is restored is what was saved."""

import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from optax_dtnh.finetune import array_files, checkpoints, manifest, processes
from optax_dtnh.finetune.checkpoints import restore_latest, save

ROOT = Path(__file__).parents[2]
SEED = 2
KILLS = 10
STAGES = {
    "before a file is written": (array_files, "reserve"),
    "with room reserved": (manifest, "write_atomically"),
    "before Orbax": (array_files, "write"),
    "before Orbax's metadata": (array_files.ocp.StandardCheckpointHandler, "finalize"),
    "before Orbax's commit": (array_files.ocp.path.atomicity.AtomicRenameTemporaryPath, "finalize"),
    "before the manifest": (manifest, "write"),
    "before the manifest has its name": (manifest.os, "replace"),
    "before the old ones are removed": (checkpoints, "_prune"),
    "before an old one's files are removed": (shutil, "rmtree"),
}


class Killed(BaseException):
    """As good as a SIGKILL, which no handler sees either."""


def mesh(shape=(4,), names=("d",)):
    return jax.make_mesh(shape, names)


def over(*axes, on=None):
    return NamedSharding(on or mesh(), P(*axes))


def simple(step):
    rng = np.random.default_rng(step)
    return {"w": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32), "key": jax.random.key(step)}


def training_state(step):
    """What a run keeps: a network, the state of a chain with anchor and reference, a random key."""
    import optax  # Here, for the children of these tests to start sooner.
    from flax import nnx

    from optax_dtnh import add_l2_sp

    model = nnx.Sequential(
        nnx.Linear(8, 4, rngs=nnx.Rngs(step)),
        nnx.BatchNorm(4, rngs=nnx.Rngs(step)),
        nnx.Dropout(0.5, rngs=nnx.Rngs(step)),
    )
    params = jax.tree.map(jnp.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    tx = optax.chain(
        add_l2_sp(0.1, reference=optax.ema(0.9)),
        optax.masked(optax.trace(0.9), jax.tree.map(lambda p: p.ndim > 1, params)),
        optax.inject_hyperparams(optax.sgd)(0.1),
    )
    opt_state = tx.init(params)
    grads = jax.tree.map(lambda p: p + step, params)
    return {
        "model": nnx.state(model),
        "optimizer": tx.update(grads, opt_state, params)[1],
        "half": jnp.full((3, 2), step / 3, jnp.bfloat16),
        "keys": jax.random.split(jax.random.key(step, impl="rbg"), 4),
        "nothing": (None, {}, optax.EmptyState()),
    }


def abstract(tree, sharding=None):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), tree
    )


def raw(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def assert_same(found, expected):
    """Structure with its types, dtypes, shapes and every bit."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(raw(a)).tobytes() == np.asarray(raw(b)).tobytes()


def assert_step(folder, step):
    """The newest checkpoint is the one of this step, bit for bit."""
    restored = restore_latest(folder, simple(0))
    assert (restored.step, restored.data_state) == (step, {"read": step})
    assert_same(restored.state, simple(step))


def save_simple(folder, step):
    save(folder, step, simple(step), {"read": step})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def child():
    """Start Python with a piece of code; whatever still runs after the test is killed."""
    children = []

    def start(code, *args):
        command = [sys.executable, "-W", "error", "-c", code, *map(str, args)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        children.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
        return children[-1]

    yield start
    for process in children:
        process.kill()
        process.communicate()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def two(folder):
    """A folder with checkpoints of the steps 1 and 2."""
    save_simple(folder, 1)
    save_simple(folder, 2)
    return folder


def test_a_folder_without_checkpoints_restores_nothing(folder):
    assert restore_latest(folder, simple(0)) is None
    folder.mkdir(parents=True)
    (folder / "step-notes.txt").write_text("not ours")
    assert restore_latest(folder, simple(0)) is None


@pytest.mark.parametrize("like", [lambda s: s, abstract], ids=["arrays", "abstract"])
def test_a_training_state_comes_back_with_its_types_and_bits(folder, like):
    state = training_state(3)
    data_state = {"epoch": 2, "order": [3, 1, 2], "name": "ä", "share": 0.1, "none": None}
    save(folder, 7, state, data_state)
    restored = restore_latest(folder, like(training_state(0)))
    assert (restored.step, restored.data_state) == (7, data_state)
    assert_same(restored.state, state)
    assert type(restored.state["optimizer"][0]).__name__ == "L2SPState"
    assert type(restored.state["model"]).__name__ == "State"
    restored_key, key = restored.state["keys"][1], state["keys"][1]
    assert jax.random.normal(restored_key) == jax.random.normal(key)


def test_a_sharded_state_comes_back_in_another_sharding(folder):
    values = jnp.arange(32, dtype=jnp.float32).reshape(8, 4)
    keys = jax.random.split(jax.random.key(0), 4)
    state = {"a": jax.device_put(values, over("d")), "b": jax.device_put(values, over())}
    state["k"] = jax.device_put(keys, over("d"))
    save(folder, 1, state, {})
    square = mesh((2, 2), ("x", "y"))
    shardings = {"a": over("y", "x", on=square), "b": over(None, "d"), "k": over("x", on=square)}
    like = {name: abstract(state[name], sharding) for name, sharding in shardings.items()}
    restored = restore_latest(folder, like)
    assert_same(restored.state, state)
    assert {name: x.sharding for name, x in restored.state.items()} == shardings


def test_a_relative_folder_is_resolved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_simple(Path("here"), 1)
    assert_step(tmp_path / "here", 1)
    assert_step(Path("here"), 1)


def test_the_two_newest_are_kept(folder):
    for step in (0, 5, 10, 15):
        save_simple(folder, step)
    assert names(folder) == ["step-00000010", "step-00000015"]
    assert_step(folder, 15)


def test_the_same_step_is_replaced_and_the_one_before_kept(two):
    save(two, 2, simple(9), {"read": 9})
    assert names(two) == ["step-00000001", "step-00000002.1"]
    restored = restore_latest(two, simple(0))
    assert (restored.step, restored.data_state) == (2, {"read": 9})
    assert_same(restored.state, simple(9))


def test_names_that_coincide_for_orbax_stay_apart(folder):
    state = {"a.b": jnp.ones(2), "a": {"b": jnp.zeros(2)}, "c/d": jnp.ones(1)}
    save(folder, 1, state, {})
    assert_same(restore_latest(folder, state).state, state)
    array_files.write(folder / "control", state)
    control = array_files.read(folder / "control", abstract(state))
    assert (control["a.b"] == control["a"]["b"]).all()  # negative control: wrong, without a word


def test_every_kind_of_damage_in_every_file_is_found(two):
    newest, rng = two / "step-00000002", random.Random(SEED)
    files = [path for path in newest.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        content = path.read_bytes()
        for damage in (halve, empty, flip, *([] if is_manifest(path) else [Path.unlink])):
            damage(path, *([rng] if damage is flip else []))
            with pytest.warns(UserWarning, match=f"damaged checkpoint step-00000002 .*{path.name}"):
                restored = restore_latest(two, simple(0))
            assert restored.step == 1
            assert_same(restored.state, simple(1))
            path.write_bytes(content)
    assert_step(two, 2)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def is_manifest(path):
    return path.name.startswith("manifest-")


def test_no_byte_of_a_manifest_can_change(two):
    path = two / "step-00000002" / "manifest-0.json"
    content = path.read_bytes()
    for index in range(0, len(content), 5):
        path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        assert manifest.problem(path.parent) == "manifest-0.json is damaged"
    path.write_bytes(content)
    assert manifest.problem(path.parent) is None


def test_manifests_of_different_saves_are_damage(two):
    shutil.copy(two / "step-00000001" / "manifest-0.json", two / "step-00000002")
    assert manifest.problem(two / "step-00000002") is not None
    shutil.copy(two / "step-00000001" / "manifest-0.json", two / "step-00000001/manifest-1.json")
    assert manifest.problem(two / "step-00000001") == "its manifests disagree"


def test_a_file_that_cannot_be_read_is_damage(two):
    path = two / "step-00000002" / "state" / "_METADATA"
    path.unlink()
    path.mkdir()
    assert "cannot be read: Is a directory" in manifest.problem(two / "step-00000002")


def test_without_the_checksums_a_flipped_byte_is_restored(tmp_path):
    """Negative control: this is why there is a manifest."""
    state = {"w": jax.random.normal(jax.random.key(0), (300, 301))}
    array_files.write(tmp_path / "state", state)
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    wrong = array_files.read(tmp_path / "state", abstract(state))
    assert not np.array_equal(wrong["w"], state["w"])


def test_all_damaged_is_an_error_and_nothing_is_overwritten(two):
    for path in two.rglob("_METADATA"):
        halve(path)
    before = {path: path.read_bytes() for path in two.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="`folder` should hold a whole checkpoint, got only") as e:
        restore_latest(two, simple(0))
    assert str(two) in str(e.value)
    assert "Nothing was overwritten. Delete the folder to start anew." in str(e.value)
    assert {path: path.read_bytes() for path in two.rglob("*") if path.is_file()} == before


def test_a_damaged_checkpoint_does_not_count_as_one_of_the_two(two):
    empty(two / "step-00000002" / "data-0.json")
    save_simple(two, 3)
    assert names(two) == ["step-00000001", "step-00000003"]
    empty(two / "step-00000003" / "data-0.json")
    save_simple(two, 3)
    assert names(two) == ["step-00000001", "step-00000003.1"]
    assert_step(two, 3)


@pytest.mark.parametrize("leftover", ["empty", "no manifest", "Orbax's", "one of two manifests"])
def test_unfinished_checkpoints_are_passed_over_silently_and_removed(two, leftover):
    path = two / "step-00000003"
    path.mkdir()
    if leftover != "empty":
        shutil.copytree(two / "step-00000002", path, dirs_exist_ok=True)
        (path / "manifest-0.json").unlink()
    if leftover == "Orbax's":
        (path / "state").rename(path / "state.orbax-checkpoint-tmp")
    if leftover == "one of two manifests":
        body = {"processes": 2, "names": "", "facts": {}, "files": {}}
        (path / "manifest-1.json").write_text(manifest._text(body))
    assert_step(two, 2)
    save_simple(two, 4)
    assert names(two) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_of_a_save_the_run_goes_on(two, stage, monkeypatch):
    def kill(*args, **kwargs):
        raise Killed

    module, name = STAGES[stage]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, kill)
        with pytest.raises(Killed):
            save_simple(two, 3)
    assert_step(two, 3 if "old one" in stage else 2)
    save_simple(two, 4)
    assert names(two) == ["step-0000000" + ("3" if "old one" in stage else "2"), "step-00000004"]
    assert_step(two, 4)


def test_killed_while_it_removes_a_checkpoint_that_one_is_unfinished_not_damaged(two, monkeypatch):
    def kill(path, ignore_errors):
        next(path.rglob("_METADATA")).unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", kill)
        with pytest.raises(Killed):
            save_simple(two, 3)
    assert not manifest.is_finished(two / "step-00000001")


SAVING = """
import sys
from pathlib import Path
from tests.finetune.test_tuning_checkpoints import restore_latest, save_simple, simple
folder = Path(sys.argv[1])
input()
restored = restore_latest(folder, simple(0))
step = restored.step if restored else 0
while True:
    step += 1
    print("saving", step, flush=True)
    save_simple(folder, step)
    print("saved", step, flush=True)
"""


def test_sigkill_at_random_moments_leaves_a_whole_checkpoint(folder, child):
    rng, step, unfinished = random.Random(SEED), 0, 0
    waiting = child(SAVING, folder)  # the next one starts while this one runs
    for kill in range(KILLS):
        running, waiting = waiting, child(SAVING, folder) if kill < KILLS - 1 else None
        saved, saving = kill_at_random(running, rng)
        unfinished += any(not manifest.is_finished(path) for path in folder.iterdir())
        restored = restore_latest(folder, simple(0))
        found = restored.step if restored else 0
        assert max(saved, step) <= found <= saving
        if found:
            assert_step(folder, found)
        step = found
    assert step > KILLS
    assert unfinished > 0  # at least one kill was inside a save
    save_simple(folder, step + 1)
    assert_step(folder, step + 1)


def kill_at_random(process, rng):
    """Kill a child some time after it wrote some lines; return the last step saved, and begun."""
    process.stdin.write("go on\n")
    process.stdin.flush()
    head = [process.stdout.readline() for _ in range(rng.randrange(1, 8))]
    time.sleep(rng.random() * 0.1)
    process.kill()
    tail = process.stdout.readlines()
    assert (process.wait(), process.stderr.read()) == (-9, "")
    steps = {"saved": 0}
    for line in head + tail:
        word, step = line.split()
        steps[word] = int(step)
    return steps["saved"], steps["saving"]


FULL = """
import resource, signal, sys
from pathlib import Path
from optax_dtnh.finetune import array_files
from tests.finetune.test_tuning_checkpoints import assert_step, names, save_simple

def fill_the_disk(folder, limit):
    save_simple(folder, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save_simple(folder, 2)
    except OSError as error:
        print(error)
    print(names(folder))
    assert_step(folder, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    save_simple(folder, 2)
    assert_step(folder, 2)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in map(int, sys.argv[2:]):
    fill_the_disk(Path(sys.argv[1]) / f"noticed {limit}", limit)
array_files.reserve = lambda directory, arrays: directory.mkdir(parents=True)
for limit in map(int, sys.argv[2:]):
    fill_the_disk(Path(sys.argv[1]) / f"by Orbax {limit}", limit)
"""


def test_a_full_disk_is_one_sentence_and_the_previous_checkpoint_stays(tmp_path, child):
    """Noticed before anything is written or, if the disk has filled up since, by Orbax."""
    limits = (0, 10, 300, 3000)
    output, errors = child(FULL, tmp_path, *limits).communicate()
    folders = [tmp_path / f"{who} {limit}" for who in ("noticed", "by Orbax") for limit in limits]
    assert errors == ""
    assert output.splitlines() == [line for folder in folders for line in refusal(folder)]


def refusal(folder):
    return (
        f"`folder` should take the checkpoint of step 2, got 'File too large' from {folder}. "
        "Make room or choose another folder; step-00000001 is whole and is where the run goes on.",
        "['step-00000001']",
    )


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match="step 1, got 'Not a directory' from .*; there is none before"
    ):
        save_simple(tmp_path / "file", 1)


def test_another_failure_of_orbax_is_one_sentence(folder, capfd):
    with pytest.raises(RuntimeError, match='Orbax could not go on: .*data type: "uint4"'):
        save(folder, 1, {"w": jnp.ones(2, "uint4")}, {})
    assert capfd.readouterr() == ("", "")
    assert restore_latest(folder, simple(0)) is None


def test_nothing_is_printed_and_no_thread_stays(folder, capfd):
    before = set(threading.enumerate())
    save_simple(folder, 1)
    assert_step(folder, 1)
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("like", "difference"),
    [
        ({"w": jnp.ones((3, 2), "bfloat16"), "n": None}, r"bfloat16\[3, 2\] at \['w'\] where it"),
        (
            {"w": jnp.ones((2, 3)), "n": None},
            r"float32\[2, 3\] at \['w'\] where it has float32\[3, ",
        ),
        ({"n": None}, r"nothing at \['w'\] where it has float32\[3, 2\]\."),
        ({"w": jnp.ones((3, 2)), "n": ()}, r"tuple at \['n'\] where it has NoneType\."),
        ({"w": jnp.ones((3, 2)), "n": jnp.ones(1)}, r"float32\[1\] at \['n'\] where it has None"),
        (
            {"w": jnp.ones((3, 2)), "n": None, "v": jnp.ones(1)},
            r"at \['v'\] where it has nothing\.",
        ),
        (jnp.ones((3, 2)), r"float32\[3, 2\] at the root where it has nothing"),
        ({f"{i}": jnp.ones(1) for i in range(20)}, r", 12 more\. Use the settings"),
    ],
)
def test_other_leaves_are_an_error_that_names_them(folder, like, difference):
    save(folder, 1, {"w": jnp.ones((3, 2)), "n": None}, {})
    with pytest.raises(ValueError, match=f"`like` should have the leaves of .*{difference}"):
        restore_latest(folder, like)


def test_leaves_in_another_order_are_an_error(folder):
    class AB(NamedTuple):
        a: Any
        b: Any

    class BA(NamedTuple):
        b: Any
        a: Any

    save(folder, 1, AB(jnp.ones(1), jnp.zeros(1)), {})
    with pytest.raises(ValueError, match="got the same leaves in another order"):
        restore_latest(folder, BA(jnp.ones(1), jnp.zeros(1)))


def test_orbax_alone_casts_to_another_dtype(tmp_path):
    """Negative control: this is why the leaves are compared."""
    array_files.write(tmp_path / "state", {"w": jnp.full(2, 1 / 3)})
    like = {"w": jax.ShapeDtypeStruct((2,), jnp.bfloat16, sharding=jnp.ones(2).sharding)}
    assert array_files.read(tmp_path / "state", like)["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({"a": {"lr": 0.1}}, r"one element or more, got float of shape \(\) at \['a'\]\['lr'\]"),
        ({"a": np.ones(2)}, r"got ndarray of shape \(2,\) at \['a'\]\. Make it an array"),
        ([jnp.ones((0, 3))], r"got ArrayImpl of shape \(0, 3\) at \[0\]"),
        ({"a": None}, "`state` should hold an array, got {'a': None}"),
    ],
)
def test_a_state_of_other_things_than_arrays_is_an_error(folder, state, match):
    with pytest.raises(TypeError, match=match):
        save(folder, 1, state, {})
    assert not folder.exists()


@pytest.mark.parametrize(
    "data_state", [{"a": b"1"}, {1: 2}, {"a": (1, 2)}, {"a": np.int64(1)}, {"a": float("nan")}, [1]]
)
def test_a_data_state_that_json_changes_is_an_error(folder, data_state):
    with pytest.raises(TypeError, match="`data_state` should be a dict that JSON gives back"):
        save(folder, 1, simple(1), data_state)
    assert not folder.exists()


def test_a_target_without_a_sharding_is_an_error(two):
    like = jax.eval_shape(lambda: simple(0))
    with pytest.raises(
        TypeError, match=r"`like` should have a sharding at every leaf, got Shape.*"
    ):
        restore_latest(two, like)


def test_a_negative_step_is_an_error(folder):
    with pytest.raises(ValueError, match="`step` should be 0 or more, got -1"):
        save(folder, -1, simple(1), {})


PROCESSES = """
import os, sys, traceback
from pathlib import Path
import jax
port, process, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
from tests.finetune.test_tuning_checkpoints import save_and_restore_on_two_processes
try:
    save_and_restore_on_two_processes(folder, process)
    print("done", flush=True)
except BaseException:
    traceback.print_exc()
    os._exit(1)  # without waiting for the other one
"""


def save_and_restore_on_two_processes(folder, process):
    def state(step):
        values = np.random.default_rng(step).normal(size=(8, 3)).astype("float32")
        return {
            name: jax.make_array_from_callback(values.shape, over(*axes), lambda i: values[i])
            for name, axes in {"split": ("d",), "copied": ()}.items()
        }

    for step in (1, 2, 3):
        save(folder, step, state(step), {"process": process, "step": step})
    processes.meet("saved")
    if process == 0:
        assert names(folder) == ["step-00000002", "step-00000003"]
    assert restored_shards(folder, state(0)) == (3, process, shards(state(3)))
    processes.meet("read")
    if process == 1:  # in the file of one process's share: the other one is told
        halve(next((folder / "step-00000003").rglob("ocdbt.process_1/d/*")))
    processes.meet("damaged")
    with pytest.warns(UserWarning, match=r"checkpoint step-00000003 \((state/|another process)"):
        assert restored_shards(folder, state(0)) == (2, process, shards(state(2)))
    fail_on_the_second_process(folder, state(4), process)


def fail_on_the_second_process(folder, state, process):
    def reserve(directory, arrays):
        raise OSError(28, "No space left on device")

    if process == 1:
        array_files.reserve = reserve
    with pytest.raises(OSError, match="step 4, got .*step-00000002 is whole"):
        save(folder, 4, state, {})


def restored_shards(folder, like):
    restored = restore_latest(folder, like)
    assert restored.data_state["step"] == restored.step
    return restored.step, restored.data_state["process"], shards(restored.state)


def shards(tree):
    return [
        np.asarray(s.data).tobytes() for x in jax.tree.leaves(tree) for s in x.addressable_shards
    ]


def test_two_processes_write_one_checkpoint(folder, child):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    children = [child(PROCESSES, port, process, folder) for process in range(2)]
    for process in reversed(children):
        output, errors = process.communicate(timeout=60)
        assert output.splitlines()[-1:] == ["done"], errors
    with (
        pytest.warns(UserWarning, match="step-00000003"),
        pytest.raises(ValueError, match="`folder` should be of a run of 1 processes, got .* of 2."),
    ):
        restore_latest(folder, {"copied": jnp.ones((8, 3)), "split": jnp.ones((8, 3))})
