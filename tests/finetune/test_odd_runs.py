"""What users do to the folder of a run, and names and numbers that are allowed but rare."""

import json
import os
import stat
import subprocess
import sys

import pytest
from flax import nnx

from optax_dtnh.finetune.progress import Progress
from optax_dtnh.models import Basic, ResNet, ViT, save_pretrained
from tests.finetune.runs import ROOT, SMALL, log_of, printed_error, run, settings

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def test_every_file_and_folder_has_the_rights_of_the_umask(trained):
    rights = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in trained[0].rglob("*")}
    assert rights == {(True, 0o750), (False, 0o640)}


TEXTS = "", "{", "{}", "[]", "null", "3", "\udcff", '{"settings": 1, "found": {}}'
EDITED = [(f"{name}.json", text) for name in ("settings", "summary", "labels") for text in TEXTS]
ELEVEN = [*"01234567899"]
LABELS = ["a"], ["a", "a", *range(2, 10)], ELEVEN, "0123456789", dict.fromkeys("0123456789")
EDITED += [("labels.json", json.dumps(labels)) for labels in LABELS]
CHANGED = [{"batch_size": 0}, {"dtype": "foo"}, {"seed": 1}, {"data": 3}, {"classes": "01"}]
EDITED += [("settings.json", changed) for changed in CHANGED]
FACTS = "", "[]", "null", '{"image_size": 0}', '{"x": 1}'
EDITED += [("preprocessing.json", text) for text in FACTS]
MISSING = "labels.json", "model.safetensors", "preprocessing.json", "train_images.json"
EDITED += [(name, None) for name in MISSING]


@pytest.mark.parametrize(("name", "text"), EDITED, ids=ascii)
def test_a_file_that_was_edited_or_is_missing_is_named_by_evaluation(out, name, text):
    file = out / name
    if isinstance(text, dict):  # other settings than those of the summary
        record = json.loads(file.read_text())
        text = json.dumps(record | {"settings": record["settings"] | text})
    file.unlink() if text is None else file.write_bytes(os.fsencode(text))
    line = printed_error("--out", out, command="evaluate")
    assert f"should hold the {name} that a run" in line or f"{name}' " in line
    if text is None and name != "model.safetensors":
        assert "has written, got none in" in line


def test_a_summary_without_measures_is_named_by_a_finished_training(out, arguments):
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps(summary | {"test": {}}))
    assert "should hold the summary.json that a run" in printed_error(*arguments, "--out", out)


LINES = [
    "{",
    "[]",
    "3",
    "",
    '{"step": 2}',
    '{"step": 2, "loss": "x", "accuracy": 1}',
    "\udcff",
    None,
]
LINES += ['{"step": 2, "loss": 1, "accuracy": NaN}']
LINES += ['{"step": 2, "loss": 1, "accuracy": 1, "val_loss": 1}']


@pytest.mark.parametrize("line", LINES)
def test_a_log_that_was_edited_or_is_gone_is_named(out, arguments, line):
    (out / "summary.json").unlink()
    log = out / "log.jsonl"
    log.unlink() if line is None else log.write_bytes(os.fsencode(f"{line}\n"))
    assert "should hold the log.jsonl" in printed_error(*arguments, "--out", out)


def test_a_run_of_a_version_with_fewer_settings_and_log_entries_is_resumed_and_tested(
    out, arguments
):
    recorded = json.loads((out / "settings.json").read_text())
    del recorded["settings"]["data_dir"]
    (out / "settings.json").write_text(json.dumps(recorded))
    run(out=out, command="evaluate")
    (out / "summary.json").unlink()
    lines = [{k: v for k, v in entry.items() if k != "penalty"} for entry in log_of(out)]
    (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "Resuming from step 5" in run(*arguments, out=out)


@pytest.mark.parametrize("leftover", ["step_x", "mine", "step_99"])
def test_foreign_folders_beside_the_checkpoints_do_not_count(out, arguments, leftover):
    (out / "summary.json").unlink()
    (out / "checkpoints" / leftover).mkdir()
    assert "Resuming from step 5" in run(*arguments, out=out)


def test_a_regularizer_far_above_the_loss_is_warned_of_once_with_a_weight(
    arguments, tmp_path, capsys
):
    shown = run(*arguments, "--method", "bss", "--weight", "1e6", out=tmp_path / "run")
    assert shown.startswith("bss at weight 1e+06: ")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: `--weight` should keep the regularizer below 10 times the l")
    assert "Lower it to about " in line


def test_a_loss_near_zero_at_the_end_is_no_reason_for_the_warning(out, capsys):
    largest = max(entry["loss"] for entry in log_of(out))
    progress = Progress(settings(), out, 5)  # resumed
    for share, count in ((9.9, 0), (10.1, 1), (11, 0)):
        progress._warn({"step": 6, "loss": 1e-6, "penalty": share * largest})
        assert capsys.readouterr().err.count("warning: `--weight` should") == count


@pytest.mark.parametrize("method", ["finetune", "feature_distance"])
def test_one_value_per_channel_is_refused_by_its_option_before_the_data(tmp_path, method):
    model = ResNet((1, 1, 1, 1), Basic, width=8, classes=3, rngs=nnx.Rngs(0))
    save_pretrained(model, tmp_path / "a.safetensors")
    given = ("--source", tmp_path / "a.safetensors", "--data", tmp_path / "missing", *SMALL)
    argv = (*given, "--batch-size", "1", "--method", method, "--out", tmp_path / "run")
    assert "`--batch-size` should be 2 or more at --image-size 32, got 1" in printed_error(*argv)
    assert "`--data` should" in printed_error(*argv, "--batch-size", "2")


def test_distillation_needs_a_head(arguments, tmp_path):
    model = ResNet((1, 0, 0, 0), Basic, width=8, classes=0, rngs=nnx.Rngs(0))
    save_pretrained(model, tmp_path / "a.safetensors")
    given = (*arguments, "--source", tmp_path / "a.safetensors", "--out", tmp_path / "run")
    line = printed_error(*given, "--method", "distillation+dtnh")
    assert "`--method` should be another for a checkpoint without a head, got distillation" in line


def test_a_size_beside_a_vit_that_is_not_that_of_its_positions_is_named(arguments, tmp_path):
    vit = ViT(64, heads=1, blocks=1, image_size=32, classes=2, rngs=nnx.Rngs(0))
    save_pretrained(vit, tmp_path / "a.safetensors")
    (tmp_path / "preprocessor_config.json").write_text('{"size": 48}')
    source = ("--source", tmp_path / "a.safetensors", "--out", tmp_path / "run", "--steps", "1")
    line = printed_error("--data", arguments[3], *source)
    assert "got 32 of its positions and 48 of preprocessor_config.json. Pass --image-size" in line


NAMES = ["caf\udce9.png", "9.41\u202fAM.png", r"a\1\g<0>\u.png", "100%s {x} $y_1$.png", "a\nb.png"]


def test_names_that_a_terminal_or_a_template_cannot_take_are_printed(out, digits, tmp_path):
    good = sorted((digits / "3").iterdir())[0].read_bytes()
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    for name in NAMES:
        (tmp_path / name).write_bytes(good)
        (tmp_path / f"bad{name}").write_bytes(b"")
    command = [sys.executable, "-m", "optax_dtnh.finetune", "predict", "--out", out]
    for names, status in (NAMES, 0), ([f"bad{NAMES[0]}"], 2):
        argv = [*command, *(tmp_path / name for name in names)]
        done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, check=False)
        assert done.returncode == status, done.stderr
        assert rb"caf\udce9.png" in done.stdout + done.stderr
        assert len(done.stdout.splitlines()) == (len(NAMES) if status == 0 else 0)
    for name in NAMES:
        line = printed_error("--out", out, tmp_path / f"bad{name}", command="predict")
        assert "cannot identify image file 'bad" in line
