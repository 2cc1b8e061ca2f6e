"""The settings of a run: what the options mean and imply, and what is refused in one line."""

import ast
import contextlib
import io
import json
import re
from dataclasses import asdict

import pytest

from optax_dtnh.finetune import __main__ as finetune
from optax_dtnh.finetune import settings as module
from optax_dtnh.finetune.forms import FORMS
from tests.finetune.runs import ROOT, printed_error, settings

REQUIRED = ("--source", "s", "--data", "d", "--out", "o")
OF_OTHERS = {"--file_format", "--data_dir", "--overwrite", "--xla_gpu_deterministic_ops"}


def test_the_defaults_are_those_of_the_published_code():
    given = asdict(settings())  # on many images
    assert given | {"method": "l2_sp+dtnh", "optimizer": "sgd", "learning_rate": 0.01} == given
    assert given | {"schedule": "step", "steps": 9000, "batch_size": 64} == given
    assert given | {"head_decay": 0.01, "weight_decay": 0, "temperature": 2.0} == given
    assert given | {"train_per_class": None, "layers": (), "seed": 0, "fsdp": False} == given


@pytest.mark.parametrize("name", module.DEFAULT_WEIGHTS)
def test_a_regularizer_has_its_default_weight_and_dtnh_its_rule(name):
    plain, protected = settings("--method", name), settings("--method", f"{name}+dtnh")
    assert plain.weight == protected.weight == module.DEFAULT_WEIGHTS[name]
    assert (plain.rule, protected.rule) == ("plain", "truncate")
    assert plain.regularizer == protected.regularizer == name
    assert plain.form == protected.form == "before"
    none = settings("--method", "finetune")
    assert (none.form, none.weight, none.rule) == (None, None, None)


def test_options_win_over_defaults_and_are_written_as_json():
    argv = ["--weight", "0", "--form", "decoupled", "--rule", "drop", "--method", "delta+dtnh"]
    given = settings(*argv, "--layers", "stem", "stage1", "--reference-decay", ".9", "--fsdp")
    assert (given.weight, given.form, given.rule) == (0, "decoupled", "drop")
    assert (given.layers, given.reference_decay, given.fsdp) == (("stem", "stage1"), 0.9, True)
    lists = {"layers": ["stem", "stage1"], "ignore": [], "classes": [], "freeze": []}
    assert json.loads(json.dumps(asdict(given))) == asdict(given) | lists


def test_a_slash_that_the_completion_of_a_shell_adds_makes_no_other_run():
    assert settings("--data", "birds/") == settings("--data", "birds")
    assert settings("--data", "/").data == "/"


def test_the_default_length_fits_the_data_and_an_epoch_has_every_image():
    steps = [settings(images=n).steps for n in (1, 320, 3200, 5760, 10**6)]
    assert steps == [500, 500, 5000, 9000, 9000]
    assert settings("--batch-size", "10000", images=10**6).steps == 9000
    assert settings("--steps", "7", images=100).steps == 7
    assert [settings("--epochs", n, images=100).steps for n in ("1", "3")] == [2, 5]
    assert settings("--epochs", "2", images=10**6).steps == 31250


def test_the_forms_of_the_options_are_those_that_exist():
    assert FORMS.keys() == module.FORMS.keys()


REFUSED = {
    "--steps 0": "--steps: it should be a whole number from 1 to",
    "--seed 4294967296": "--seed: it should be a whole number from 0",
    "--learning-rate 0": "should be a number > 0",
    "--weight 1e999": "--weight: it should be a number >= 0",
    "--reference-decay 1": "above 0 and below 1",
    "--step 3": "unrecognized arguments: --step 3. Did you mean --steps?",  # no abbreviations
    "--lr 0.1": "unrecognized arguments: --lr 0.1. Did you mean --learning-rate?",
    "cats": "unrecognized arguments: cats. See `python -m optax_dtnh.finetune train --help`.",
    **{
        f"{x}=": f"{x}: it should be a name, got an empty" for x in ("--data", "--classes", "--out")
    },
    "--learning-rate 0,1": "got '0,1'. Separate values by spaces, and write decimals with a point",
    "--method l1": "invalid choice: 'l1'",
    "--method finetune --weight 1": "`--weight` should come with",
    "--method finetune --form before": "`--form` should come with",
    "--method bss --rule drop": "`--rule` should come with a method",
    "--method bss --reference-decay 0.9": "should come with a method that ends in +dtnh",
    "--method bss --granularity leaf": "`--granularity` should come with a method",
    "--layers stem": "`--layers` should come with feature_distance",
    "--form momentum --optimizer adam": "should come with --optimizer sgd, got momentum. Leave",
    "--form metric": "`--form` should come with --optimizer adam, got metric",
    "--form metric --optimizer adam --reference-decay 0.9": "should come with another form",
    "--epochs 3 --steps 9": "`--epochs` should come without `--steps`, got 3. Leave it out",
    "--val-per-class 3 --val-fraction 0.2": "`--val-per-class` should come without `--val-f",
    "--val-per-class 3 --train-per-class 3": "should be below --train-per-class, 3, got 3. Leave",
    "--val-fraction 1": "--val-fraction: it should be a number above 0 and below 1, got '1'",
    "--patience 0": "--patience: it should be a whole number from 1 to",
    "--clip-norm 0": "--clip-norm: it should be a number > 0, got '0'",
    "--batch-size 8 --micro-batches 3": "should be a divisor of --batch-size, 8, got 3. Leave",
    "--micro-batches 2 --method bss": "should come with another method than bss, got 2",
    "--label-smoothing 1": "--label-smoothing: it should be a number from 0 and below 1, got '1'",
    "--augment none --resize 36": "should come with --augment standard, which crops, got 36. Leave",
    "--workers 999999": "`--workers` should be at most ",
    "--mean 0.5 0.5": "--mean: expected 3 arguments",
    "--mean 1 2 nan": "--mean: it should be a number, got 'nan'",
    "--interpolation magic": "--interpolation: invalid choice: 'magic'",
}


@pytest.mark.parametrize("argv", REFUSED)
def test_a_mistake_costs_one_line(argv):
    assert REFUSED[argv] in printed_error(*REQUIRED, *argv.split())


def test_a_lack_of_memory_is_one_line_and_other_errors_stay(monkeypatch):
    def fails(*_):
        raise RuntimeError(texts.pop())

    texts = ["INTERNAL", "RESOURCE_EXHAUSTED: Out of memory allocating 32375450960 bytes."]
    monkeypatch.setattr(finetune, "settings_of", fails)
    assert "Lower `--batch-size` or `--image-size`" in printed_error(*REQUIRED)
    with pytest.raises(RuntimeError, match="INTERNAL"):
        finetune.main(["train", *REQUIRED])


def test_what_is_missing_is_named():
    assert "--out, --data" in printed_error("--source", "s")
    assert "--out" in printed_error(command="evaluate")
    assert "IMAGE" in printed_error("--out", "o", command="predict")


def test_every_option_that_a_message_names_exists():
    options = set(OF_OTHERS)
    for command in ("train", "evaluate", "predict"):
        with contextlib.redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit):
            finetune.main([command, "--help"])
        options |= set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", shown.getvalue(), re.MULTILINE))
    trees = [ast.parse(path.read_text()) for path in (ROOT / "optax_dtnh/finetune").glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    named = {name for x in nodes for name in re.findall("--[a-z][a-z_-]*", str(x.value))}
    assert len(named) > 20
    assert named <= options
