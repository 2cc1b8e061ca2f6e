"""Data sets of TFDS, prepared and read without tensorflow, and what is refused."""

import functools
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from optax_dtnh.finetune.dataset import open_data
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.images import decode
from tests.finetune.runs import SMALL, accuracy_in, run, write_source

COUNTS = {"train": 120, "test": 30}
RECORDS = "png_digits-{}.array_record-00000-of-00001"


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.uint8(pixels).squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


@functools.cache
def digits():
    pixels, labels = load_digits(return_X_y=True)
    return np.uint8(pixels.reshape(-1, 8, 8) * 15), labels


# Not registered, as if the code were gone: the data set is then opened from its files.
with tfds.core.registered.skip_registration():

    class PngDigits(tfds.core.GeneratorBasedBuilder):
        """Scikit-learn's digits."""

        VERSION = tfds.core.Version("1.0.0")
        SPLITS = COUNTS
        FEATURES = {
            "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=[f"digit {i}" for i in range(10)]),
        }

        def _info(self):
            features = tfds.features.FeaturesDict(self.FEATURES)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in self.SPLITS}

        def _generate_examples(self, split):
            first = sum(list(COUNTS.values())[: list(self.SPLITS).index(split)])
            for i in range(first, first + self.SPLITS[split]):
                yield i, {"image": png(digits()[0][i]), "label": int(digits()[1][i])}

    class Contest(PngDigits):
        """The same, of which the labels of the test split are held back."""

        SPLITS = {"train": 20, "test": 5, "validation": 10}

        def _generate_examples(self, split):
            for i in range(self.SPLITS[split]):
                label = -1 if split == "test" else i % 10
                yield i, {"image": png(digits()[0][i]), "label": label}

    class TrainOnly(PngDigits):
        """The same without a test split."""

        SPLITS = {"train": 120}

    class Untrained(PngDigits):
        """The same without a training split."""

        SPLITS = {"test": 20}

    class Numbers(PngDigits):
        """The same without labels, but with numbers called so."""

        SPLITS = {"train": 5}
        FEATURES = PngDigits.FEATURES | {"label": tfds.features.Scalar(np.int64)}

    class OneClass(PngDigits):
        """A data set of one class."""

        SPLITS = {"train": 5}
        FEATURES = PngDigits.FEATURES | {"label": tfds.features.ClassLabel(names=["digit"])}

        def _generate_examples(self, split):
            for i in range(5):
                yield i, {"image": png(digits()[0][i]), "label": 0}


def prepare(builder, data_dir):
    builder(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return str(data_dir)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(PngDigits, tmp_path_factory.mktemp("tfds"))


@pytest.fixture
def copied(prepared, tmp_path):
    """The folder of a copy of the prepared data set, to be damaged."""
    shutil.copytree(prepared, tmp_path / "tfds")
    return tmp_path / "tfds" / "png_digits" / "1.0.0"


def opened(name, data_dir, **options):
    options = {"train_per_class": None, "seed": 0} | options
    return open_data(f"tfds:{name}", data_dir=data_dir and str(data_dir), **options)


def refused(match, name, data_dir, **options):
    """Check that the data set is refused for this reason, in two sentences."""
    with pytest.raises(UsageError, match=match) as raised:
        opened(name, data_dir, **options)
    assert re.fullmatch(r"`--[a-z-]+` should [^\n]+, got [^\n]+\. [^\n]+\.", str(raised.value))


def all_of(source):
    return [source[i] for i in range(len(source))]


# --- what is read


def test_a_prepared_data_set_is_read_without_tensorflow(prepared):
    train, test, classes, broken, _ = opened("png_digits", prepared)
    assert (len(train), len(test), broken) == (120, 30, ())
    assert classes == tuple(f"digit {i}" for i in range(10))
    pixels, labels = digits()
    read = {np.asarray(decode(x["image"]))[..., 0].tobytes(): x["label"] for x in all_of(train)}
    assert read == {p.tobytes(): n for p, n in zip(pixels[:120], labels[:120], strict=True)}
    assert train[7]["name"] == "png_digits train[7]"
    assert "tensorflow" not in sys.modules


def test_a_data_set_without_a_test_split_is_split_by_the_seed(tmp_path):
    data_dir = prepare(TrainOnly, tmp_path)
    train, test, _, _, _ = opened("train_only", data_dir, train_per_class=4)
    assert (len(train), len(test)) == (40, 80)
    assert not {x["name"] for x in all_of(train)} & {x["name"] for x in all_of(test)}
    refused("should have a split of its own", "train_only", data_dir)


def test_a_split_whose_labels_are_held_back_is_not_tested_on(tmp_path):
    _, test, _, _, _ = opened("contest", prepare(Contest, tmp_path))
    assert test[0]["name"] == "contest validation[0]"


@pytest.mark.slow
def test_a_source_serves_another_process_that_knows_the_files_alone(prepared, tmp_path):
    source = opened("png_digits", prepared).train
    (tmp_path / "source.pkl").write_bytes(pickle.dumps(source))
    script = (
        "import pathlib, pickle, sys\n"
        f"source = pickle.loads(pathlib.Path({str(tmp_path / 'source.pkl')!r}).read_bytes())\n"
        "assert 'tensorflow' not in sys.modules\n"
        "print([source[i]['label'] for i in range(len(source))])"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert json.loads(run.stdout or run.stderr) == [x["label"] for x in all_of(source)]


@pytest.mark.slow
def test_the_command_trains_and_tests_on_it(prepared, tmp_path):
    source = write_source(tmp_path / "resnet.safetensors")
    where = ["--data", "tfds:png_digits", "--data-dir", prepared]
    run("--source", source, *where, *SMALL, "--steps", "2", out=tmp_path / "run")
    assert len(json.loads((tmp_path / "run/labels.json").read_text())) == 10
    accuracy = json.loads((tmp_path / "run/summary.json").read_text())["test_accuracy"]
    assert accuracy_in(run(command="evaluate", out=tmp_path / "run")) == accuracy


# --- a data set of TFDS, with random content


def encode(self, image):
    """In place of TFDS's way to encode an array, which needs tensorflow."""
    return png(image)


def test_a_data_set_of_tfds_is_read(tmp_path, monkeypatch):
    builder = tfds.builder("oxford_flowers102", data_dir=tmp_path, file_format="array_record")
    template = tfds.core.ShardedFileTemplate(
        tmp_path, dataset_name=builder.name, filetype_suffix="array_record"
    )
    splits = [
        tfds.core.SplitInfo(split, [6], 100, template) for split in ("train", "validation", "test")
    ]
    builder.info.set_splits(tfds.core.splits.SplitDict(splits))
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)
    image_encoder = tfds.core.features.image_feature._ImageEncoder
    monkeypatch.setattr(image_encoder, "_encode_image", encode)
    with tfds.testing.mock_data(num_examples=6, data_dir=str(tmp_path)):
        train, test, classes, _, _ = opened("oxford_flowers102", tmp_path)
        assert (len(train), len(test), len(classes)) == (6, 6, 102)
        assert test[0]["name"] == "oxford_flowers102 test[0]"
        assert decode(train[0]["image"]).mode == "RGB"


# --- what is refused


@pytest.mark.parametrize("name", ["no_such_set", "huggingface:mnist", "../mnist", "", "mnist/a/b"])
def test_an_unknown_name(tmp_path, name):
    match = rf"that TFDS knows, got tfds:{re.escape(name)}, which"
    refused(match, name, tmp_path)


@pytest.mark.parametrize("name", ["cifar10/blue", "cifar10:9.9.9"])
def test_an_unknown_config_or_version(tmp_path, name):
    refused(rf"got tfds:{name} \(.*\)\. Check its config and version", name, tmp_path)


def test_a_data_set_that_is_not_prepared(tmp_path, caplog):
    command = f"`tfds build cifar10 --file_format=array_record --data_dir={tmp_path}`"
    match = rf"Prepare it with {re.escape(command)}, which downloads it and needs tensorflow"
    refused(match, "cifar10", tmp_path)
    assert not caplog.records
    assert not any(tmp_path.iterdir())


def test_the_default_folder_of_data_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    match = r"`tfds build cifar10 --file_format=array_record`"
    refused(match, "cifar10", None)


def test_examples_without_an_image_and_a_label(tmp_path):
    data_dir = prepare(Numbers, tmp_path)
    refused("got tfds:numbers with `image`, `label`", "numbers", data_dir)


def test_one_class_only(tmp_path):
    data_dir = prepare(OneClass, tmp_path)
    refused("2 classes, got tfds:one_class with 1", "one_class", data_dir)


def test_no_training_split(tmp_path):
    data_dir = prepare(Untrained, tmp_path)
    refused(r"split `train` .* with `test`\.", "untrained", data_dir)


def test_a_truncated_file_whose_examples_tfds_gives_as_none(copied):
    file = copied / RECORDS.format("train")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    match = r"train\[0\] is missing in its file\), the first of 120 .* among 150\. Prepare it again"
    refused(match, "png_digits", copied.parents[1])


def test_a_damaged_file(copied):
    file = copied / RECORDS.format("test")
    content = bytearray(file.read_bytes())
    content[400] ^= 255
    file.write_bytes(content)
    match = r"got 'png_digits test\[\d+\]' \(.*hash mismatch"
    refused(match, "png_digits", copied.parents[1])
    broken = opened("png_digits", copied.parents[1], skip_broken=True).broken
    assert len(broken) == 1


def test_a_missing_file(copied):
    (copied / RECORDS.format("train")).unlink()
    refused(r"No such file .* first of 120", "png_digits", copied.parents[1])


def test_another_format(copied):
    info = copied / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    match = r"File format array_record does not match .* prepare it again with `tfds .*--overwrite`"
    refused(match, "png_digits", copied.parents[1])


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_damaged_descriptions(copied, name):
    (copied / name).write_text((copied / name).read_text()[:100])
    refused(r"that TFDS can open, got tfds:png_digits \(", "png_digits", copied.parents[1])


def test_tfds_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UsageError, match=r"^`tensorflow_datasets` is not installed, so tfds:mnist"):
        opened("mnist", tmp_path)
