"""Data sets of TFDS, prepared and read without tensorflow, and what is refused."""

import json
import re
import shutil
import sys
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from optax_dtnh.finetune.dataset import open_data, open_test
from optax_dtnh.finetune.images import decode
from tests.finetune import pictures
from tests.finetune.pictures import encoded, flip, halve, names
from tests.finetune.runs import SMALL, accuracy_in, run, write_source

TRAIN, TEST = (f"png_digits-{x}.array_record-00000-of-00001" for x in ("train", "test"))
PIXELS, LABELS = load_digits(return_X_y=True)
LABELS = LABELS.tolist()
PIXELS = np.uint8(PIXELS.reshape(-1, 8, 8) * 15)
NAMES = [f"digit {i}" for i in range(10)]


def png(index):
    return encoded(Image.fromarray(PIXELS[index]))


# Not registered, as if the code were gone: the data set is then opened from its files.
with tfds.core.registered.skip_registration():

    class PngDigits(tfds.core.GeneratorBasedBuilder):
        """Scikit-learn's digits."""

        VERSION = tfds.core.Version("1.0.0")
        SPLITS = {"train": 120, "test": 30}
        LABEL = tfds.features.ClassLabel(names=NAMES)

        def _info(self):
            image = tfds.features.Image(shape=(8, 8, 1), encoding_format="png")
            features = {"image": image, "label": self.LABEL, "file_name": tfds.features.Text()}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in self.SPLITS}

        def _generate_examples(self, split):
            first = 120 * (split != next(iter(self.SPLITS)))
            for i in range(first, first + self.SPLITS[split]):
                yield i, {"image": png(i), "label": self.label(split, i), "file_name": f"{i}"}

        def label(self, split, i):
            return LABELS[i]

    def variant(name, label=PngDigits.label, kind=PngDigits.LABEL, **splits):
        return type(name, (PngDigits,), {"SPLITS": splits, "label": label, "LABEL": kind})

    def held_back(self, split, i):
        return -1 if split == "test" else i % 10

    MIXED = tfds.features.ClassLabel(names=[NAMES[i] for i in (3, *range(9, 3, -1), 0, 2, 1)])
    Reordered = variant("Reordered", lambda *x: NAMES[LABELS[x[2]]], MIXED, train=120, test=30)
    Contest = variant("Contest", held_back, train=20, test=5, validation=10)
    Three = variant("Three", train=20, test=5, validation=10)
    Gaps = variant("Gaps", lambda *x: LABELS[x[2]] if x[2] % 3 else -1, train=60, test=12)
    TrainOnly = variant("TrainOnly", train=120)
    Unseen = variant("Unseen", lambda *x: int(x[1] == "test"), train=20, test=5)
    Untrained = variant("Untrained", test=20)
    Numbers = variant("Numbers", kind=tfds.features.Scalar(np.int64), train=20)


def prepare(builder, data_dir):
    builder(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return str(data_dir)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(PngDigits, tmp_path_factory.mktemp("tfds"))


def opened(name, data_dir, **options):
    options = {"train_per_class": None, "seed": 0} | options
    return open_data(f"tfds:{name}", data_dir=data_dir and str(data_dir), **options)


def refused(match, name, data_dir, **options):
    options = {"train_per_class": None, "data_dir": data_dir and str(data_dir)} | options
    pictures.refused(match, f"tfds:{name}", **options)


def all_of(source):
    return [source[i] for i in range(len(source))]


def test_a_prepared_data_set_is_read_without_tensorflow(prepared):
    train, test, classes, broken, *_ = opened("png_digits", prepared)
    assert (len(train), len(test), broken) == (120, 30, ())
    assert classes == tuple(NAMES)
    read = {np.asarray(decode(x["image"]))[..., 0].tobytes(): x["label"] for x in all_of(train)}
    assert read == {p.tobytes(): n for p, n in zip(PIXELS[:120], LABELS, strict=False)}
    assert set(names(train)) == {f"png_digits train[{i}]" for i in range(120)}
    assert "tensorflow" not in sys.modules


def test_a_split_whose_labels_are_held_back_is_not_tested_on(tmp_path):
    data = opened("contest", prepare(Contest, tmp_path))
    assert data.test[0]["name"] == "contest validation[0]"
    assert data.left_out == ("split test 5",)


@pytest.mark.parametrize("train_per_class", [None, 2])
def test_images_without_a_label_are_left_out_and_counted(tmp_path, train_per_class):
    data = opened("gaps", prepare(Gaps, tmp_path), train_per_class=train_per_class)
    assert len(data.train) == (2 * 10 if train_per_class else 40)
    assert (len(data.test), data.left_out) == (8, ("images without a label 24",))
    assert min(x["label"] for x in (*all_of(data.train), *all_of(data.test))) == 0


def test_a_validation_split_beside_a_test_split_is_validated_on(tmp_path):
    data = opened("three", prepare(Three, tmp_path))
    assert (len(data.train), len(data.test), len(data.val), data.left_out) == (20, 5, 10, ())
    assert data.val[0]["name"].startswith("three validation[")


def write_images(source, classes, root):
    for x in all_of(source):
        path = root / classes[x["label"]] / f"{zlib.crc32(x['image'])}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(x["image"])
    return root


def test_a_data_set_and_a_folder_of_the_same_images_are_the_same_data(tmp_path):
    where = {"train_per_class": 4, "seed": 0}
    data = open_data("tfds:train_only", data_dir=prepare(TrainOnly, tmp_path / "tfds"), **where)
    write_images(data.test, data.classes, tmp_path / "data")
    root = write_images(data.train, data.classes, tmp_path / "data")
    same = open_data(str(root), **where)
    assert same.sha256 == data.sha256
    assert [x["image"] for x in all_of(same.train)] == [x["image"] for x in all_of(data.train)]
    tested = open_test(str(root), data.sha256, known=data.classes, **where)
    assert (len(tested.images), tested.same) == (80, True)
    refused("`--classes` should come with a folder", "train_only", tmp_path, classes=("ant",))


@pytest.mark.slow
def test_the_command_trains_and_tests_on_it(prepared, tmp_path):
    source = write_source(tmp_path / "resnet.safetensors")
    where = ["--data", "tfds:png_digits", "--data-dir", prepared]
    run("--source", source, *where, *SMALL, "--steps=2", "--workers=1", out=tmp_path / "run")
    assert len(json.loads((tmp_path / "run/labels.json").read_text())) == 10
    accuracy = json.loads((tmp_path / "run/summary.json").read_text())["test_accuracy"]
    assert accuracy_in(run(command="evaluate", out=tmp_path / "run")) == (f"{accuracy:.2%}", "30")
    data = opened("png_digits", prepared)
    folder = [write_images(data.test, data.classes, tmp_path / "folder")]
    other = ["tfds:reordered", "--data-dir", prepare(Reordered, tmp_path / "reordered")]
    for argv in (folder, other):
        shown = run(*argv, command="evaluate", out=tmp_path / "run")
        assert accuracy_in(shown) == (f"{accuracy:.2%}", "30")


UNKNOWN = {
    "that TFDS knows, got tfds:{}. Check the name": ["none"],
    "of the form NAME[/CONFIG][:VERSION], got tfds:{}. Check the": ["../mnist", "a/b/c", ""],
    "that TFDS can open, got tfds:{} (": ["cifar10/blue", "cifar10:9.9.9"],
}


@pytest.mark.parametrize(("name", "match"), [(n, k.format(n)) for k in UNKNOWN for n in UNKNOWN[k]])
def test_an_unknown_name_config_or_version(tmp_path, name, match):
    refused(re.escape(match), name, tmp_path)


def test_a_data_set_that_is_not_prepared(tmp_path, monkeypatch, caplog):
    command = f"`tfds build cifar10 --file_format=array_record --data_dir={tmp_path}`"
    match = rf"Prepare it with {re.escape(command)}, which downloads it and needs tensorflow"
    refused(match, "cifar10", tmp_path)
    assert not caplog.records
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    refused(r"`tfds build cifar10 --file_format=array_record`", "cifar10", None)


@pytest.mark.parametrize(
    ("builder", "match"),
    [
        (Numbers, "got tfds:numbers with `file_name`, `image`, `label`"),
        (Unseen, r"to train on, got none of 'digit 1' in"),
        (Untrained, r"split `train` .* with `test`\."),
    ],
)
def test_a_data_set_that_cannot_be_trained_on(tmp_path, builder, match):
    refused(match, builder.name, prepare(builder, tmp_path))


def rename_format(path):
    path.write_text(path.read_text().replace("array_record", "tfrecord"))


DAMAGED = {
    "half a split": (halve, TRAIN, r"train\[0\] is missing in its file\), the first of 120"),
    "a flipped byte": (
        partial(flip, at=400),
        TEST,
        r"got 'png_digits test\[\d+\]' \(.*hash mismatch",
    ),
    "no split": (Path.unlink, TRAIN, r"No such file .* first of 120"),
    "other format": (rename_format, "dataset_info.json", "does not match .* again with `tfds"),
    "half of info": (halve, "dataset_info.json", r"that TFDS can open, got tfds:png_digits \("),
    "half of features": (halve, "features.json", r"that TFDS can open, got tfds:png_digits \("),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_data_set(prepared, tmp_path, case):
    damage, file, match = DAMAGED[case]
    shutil.copytree(prepared, tmp_path / "tfds")
    damage(tmp_path / "tfds/png_digits/1.0.0" / file)
    refused(match, "png_digits", tmp_path / "tfds")
    if case == "a flipped byte":
        assert len(opened("png_digits", tmp_path / "tfds", skip_broken=True).broken) == 1
