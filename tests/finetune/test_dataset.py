"""The images of a folder: which are trained and tested on, and what is refused."""

import hashlib
import os
import re
import shutil
from types import SimpleNamespace

import pytest

from optax_dtnh.finetune import trained
from optax_dtnh.finetune.dataset import open_data, open_test
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import Image, Selected
from tests.finetune.pictures import AS_IS, encoded, folder, grays, names, photo, refused, write


def test_a_flat_folder_is_split_by_the_seed_into_n_per_class_and_the_rest(tmp_path):
    data = folder(tmp_path, dog=5, cat=4, ant=6)
    train, test, classes, broken, *_ = open_data(data, train_per_class=3, seed=0)
    assert (classes, broken) == (("ant", "cat", "dog"), ())
    assert [train[i]["label"] for i in range(9)] == [0] * 3 + [1] * 3 + [2] * 3
    assert [test[i]["label"] for i in range(len(test))] == [0] * 3 + [1] + [2] * 2
    assert sorted(grays(train) + grays(test)) == list(range(15))
    assert all(name.startswith(f"{data}/ant/") for name in names(train)[:3])


def test_the_draw_depends_on_the_seed_and_the_class_alone(tmp_path):
    data = folder(tmp_path, ant=9, cat=9)
    drawn = [names(open_data(data, train_per_class=4, seed=seed).train) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    folder(tmp_path, dog=9)
    assert names(open_data(data, train_per_class=4, seed=1).train)[:8] == drawn[0]


def test_the_run_is_of_images_and_names_of_classes_whatever_the_files_are_called(tmp_path):
    def taken():
        data = open_data(root, train_per_class=1, seed=0)
        images = [data.train[i] for i in (0, 1)]
        return data.sha256, [(x["image"], data.classes[x["label"]]) for x in images]

    def digest(*parts):
        return hashlib.sha256(b"".join(parts)).digest()

    root = folder(tmp_path, ant=3, cat=3)
    before = taken()
    files = tmp_path.glob("*/*.png")
    found = [digest(digest(path.read_bytes()), path.parent.name.encode()) for path in files]
    assert before[0] == digest(*sorted(found), b"||").hex()  # as in runs of earlier versions
    (tmp_path / "ant/2.png").rename(tmp_path / "ant/!.png")
    assert taken() == before
    (tmp_path / "ant/!.png").write_bytes(encoded(photo()))
    replaced = taken()
    assert replaced[0] != before[0]
    (tmp_path / "ant/!.png").rename(tmp_path / "cat/!.png")
    assert taken()[0] not in (before[0], replaced[0])
    (tmp_path / "cat/!.png").rename(tmp_path / "ant/!.png")
    (tmp_path / "ant").rename(tmp_path / "bee")
    assert taken()[0] not in (before[0], replaced[0])


def test_a_folder_of_train_and_test_keeps_its_split(tmp_path):
    folder(tmp_path / "train", ant=3, cat=4)
    folder(tmp_path / "test", cat=2)
    whole, drawn = (open_data(str(tmp_path), train_per_class=n, seed=0) for n in (None, 3))
    assert (len(whole.train), len(whole.test)) == (7, 2)
    assert (len(drawn.train), len(drawn.test)) == (6, 2)
    assert [whole.test[i]["label"] for i in range(2)] == [1, 1]
    assert set(names(drawn.train)) < set(names(whole.train))


def test_links_are_followed_and_hidden_files_are_not(tmp_path):
    data = folder(tmp_path, ant=2)
    folder(tmp_path.with_name("elsewhere"), cat=2)
    (tmp_path / "cat").symlink_to(tmp_path.with_name("elsewhere") / "cat")
    write(tmp_path, ".hidden/0.png", "ant/.0.png")
    train, test, *_ = opened = open_data(data, train_per_class=1, seed=0)
    found = [f"{data}/{name}" for name in ("ant/0.png", "ant/1.png", "cat/0.png", "cat/1.png")]
    assert sorted(names(train) + names(test)) == found
    assert opened.left_out == ("hidden 2",)


COPIES = {  # a copy of train/ant/0.png; numbers of images and the note; numbers without copies
    "nothing": ("", (4, 4), r"", (4, 4)),
    "train and test": ("test/ant/9.png", (4, 5), r".*both in train and.*", (3, 5)),
    "two classes": ("train/cat/9.png", (5, 4), r".*in two classes: '.* = .*", (3, 4)),
    "both": ("test/cat/9.png", (4, 5), r".*both in .* two classes.*", (3, 4)),
    "within train": ("train/ant/9.png", (5, 4), r"", (5, 4)),
}


@pytest.mark.parametrize("case", COPIES)
def test_equal_images_are_said_refused_or_left_out(tmp_path, case):
    copy, counts, match, dropped = COPIES[case]
    write(tmp_path, "{train,test}/{ant,cat}/{0,1}.png")
    if copy:
        shutil.copy(tmp_path / "train/ant/0.png", tmp_path / copy)
    options = {"train_per_class": None, "seed": 0}
    data = open_data(str(tmp_path), **options)
    assert (len(data.train), len(data.test)) == counts
    assert re.fullmatch(match, " ".join(data.notes))
    if match:
        refused(r"no image twice, got '.*', where 1", tmp_path, **options, duplicates="refuse")
    data = open_data(str(tmp_path), **options, duplicates="drop")
    assert ((len(data.train), len(data.test)), data.notes) == (dropped, ())
    removed = sum(counts) - sum(dropped)
    assert data.left_out == ((f"copies {removed}",) if removed else ())


def test_copies_without_a_split_go_before_the_draw_and_evaluation_follows(tmp_path):
    data = folder(tmp_path, ant=4, cat=4)
    for i in range(9):
        shutil.copy(tmp_path / "ant/0.png", tmp_path / f"ant/copy {i}.png")
    shutil.copy(tmp_path / "cat/0.png", tmp_path / "ant/cat.png")
    options = {"train_per_class": 2, "seed": 0, "duplicates": "drop"}
    opened = open_data(data, **options)
    assert sorted(grays(opened.train) + grays(opened.test)) == [0, 1, 2, 3, 5, 6, 7]
    assert opened.left_out == ("copies 11",)
    seen = {image.digest for image in opened.train.images}
    options |= {"known": opened.classes, "trained": seen}
    tested = open_test(data, opened.sha256, **options)
    assert (grays(tested.images), tested.same, tested.trained) == (grays(opened.test), True, 0)
    tested = open_test(data, "of another run", **options)
    assert (len(tested.images), tested.same, tested.trained) == (18, False, 13)


def test_the_written_list_of_training_images_has_any_name(tmp_path):
    digests = {os.fsdecode(name): hashlib.sha256(name).digest() for name in (b"a\nb", b"caf\xe9")}
    images = tuple(Image("train", name, "", tuple, digest) for name, digest in digests.items())
    trained.write(tmp_path, SimpleNamespace(train=Selected(images, ()), classes=()), AS_IS)
    assert trained.trained_images(tmp_path) == frozenset(digests.values())


def test_labels_are_positions_among_the_classes_of_the_model_that_is_tested(tmp_path):
    folder(tmp_path / "a", ant=2, cat=1, zebra=1)
    folder(tmp_path / "b", bee=1, Cat=1)
    options = {"known": ("zebra", "cat", "ant"), "train_per_class": None, "seed": 0}
    assert open_test(str(tmp_path / "a"), "", **options).images.labels == (2, 2, 1, 0)
    with pytest.raises(UsageError, match=r"'Cat', 'bee', which .* \(2 im.* 'Cat' and 'cat' a"):
        open_test(str(tmp_path / "b"), "", **options)


UNFIT = {
    "too few": ("", r"5 or more .* on 4 and test .* 4 of 'cat'", {"train_per_class": 4}),
    "too few to train on": ("train/", r"5 or more .* on 5, got 4 of 'cat'", {"train_per_class": 5}),
    "no number per class": (
        "",
        r"a test split where `--train-per-class`",
        {"train_per_class": None},
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_folder_that_does_not_fit_is_refused_before_an_image_is_read(tmp_path, monkeypatch, case):
    place, match, options = UNFIT[case]
    folder(tmp_path / place, ant=5, cat=4)
    if place:
        folder(tmp_path / "test", ant=3)
    monkeypatch.delattr("optax_dtnh.finetune.dataset.check_images")
    refused(match, tmp_path, **options)


def test_what_cannot_be_read(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    data = folder(tmp_path, ant=2, cat=2)
    monkeypatch.setattr("os.scandir", denied)  # root may read everything
    refused(r"can be read, got '.*' \(Permission denied\)", data)


LOOPS = {"..": "it links to a folder a", "loop": "Too many le", "../..": "it links to a folder a"}


@pytest.mark.parametrize("target", LOOPS)
def test_a_link_to_a_folder_around_it_or_to_itself(tmp_path, target):
    folder(tmp_path / "data", ant=2, cat=2)
    (tmp_path / "data" / "ant" / "loop").symlink_to(target)
    (tmp_path / "ring").symlink_to("data")  # by another name
    data = tmp_path / ("ring" if target == "../.." else "data")
    refused(rf"can be read, got '.*loop.*' \({LOOPS[target]}.*\)\. Check", data)


BROKEN = {
    "truncated.jpg": (encoded(photo(), "JPEG")[:-900], r"truncated"),
    "text.jpg": (b"not an image", r"cannot identify image file 'text\.jpg'"),
    "gone.jpg": (None, "No such file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_named_with_the_reason_or_left_out_on_request(tmp_path, name):
    data = folder(tmp_path, ant=3, cat=3)
    content, reason = BROKEN[name]
    path = tmp_path / "cat" / name
    path.symlink_to("nowhere") if content is None else path.write_bytes(content)
    match = rf"can be read, got '.*/cat/{name}' \(.*{reason}.*\), the first of 1 broken am"
    refused(match, data)
    train, test, _, broken, *_ = open_data(data, train_per_class=2, seed=0, skip_broken=True)
    assert broken == (str(path),)
    assert sorted(grays(train) + grays(test)) == list(range(6))


def test_too_few_images_are_left(tmp_path):
    data = folder(tmp_path / "train", ant=3, cat=3)
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"")
    refused(r"3 or more readable .* got 2 of 'cat'", data, train_per_class=2, skip_broken=True)
    folder(tmp_path / "test", ant=1)
    (tmp_path / "test" / "ant" / "0.png").write_bytes(b"")
    refused(r"first of 2 broken among 7", tmp_path)
    refused(r"to train and to test on, got 2 and 0 in", tmp_path, skip_broken=True)
    for path in (tmp_path / "train" / "cat").iterdir():
        path.write_bytes(b"")
    refused(r"to train on, got none of 'cat'", tmp_path, skip_broken=True, train_per_class=None)
