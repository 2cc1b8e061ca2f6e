"""Validation: which images it is made of, which step is the best, and when it ends the training."""

import re
import shutil

import pytest

from optax_dtnh.finetune.dataset import open_data, open_test
from tests.finetune.pictures import folder, grays, names, refused, write


def opened(data, **options):
    return open_data(str(data), **{"train_per_class": None, "seed": 0} | options)


def test_validation_images_come_from_the_training_images_and_the_test_images_stay(tmp_path):
    data = folder(tmp_path, ant=8, cat=12)
    options = {"train_per_class": 6, "seed": 3}
    without = open_data(data, **options)
    for more, counts in (({"val_per_class": 2}, [2, 2]), ({"val_fraction": 0.5}, [3, 3])):
        held = open_data(data, **options, **more)
        assert [held.val.labels.count(label) for label in (0, 1)] == counts
        assert sorted(grays(held.train) + grays(held.val)) == sorted(grays(without.train))
        assert held.trained.keys() == set(names(held.train))
        assert grays(held.test) == grays(without.test)
        tested = open_test(data, held.sha256, **options, **more)
        assert grays(tested.images) == grays(held.test)
        assert tested.same
    assert without.val is None


def test_the_choice_depends_on_seed_and_content_and_not_on_the_names_of_files(tmp_path):
    write(tmp_path, "{train,test}/{ant,cat}/{0,1,2,3,4,5,6,7}.png")
    chosen = [names(opened(tmp_path, val_per_class=3, seed=seed).val) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    held = opened(tmp_path, val_per_class=3).val
    before = [held[i]["image"] for i in range(6)]
    for path in (tmp_path / "train").glob("*/*.png"):
        path.rename(path.with_stem(f"{9 - int(path.stem)} renamed"))
    held = opened(tmp_path, val_per_class=3).val
    assert [held[i]["image"] for i in range(6)] == before


def test_copies_of_a_validation_image_are_not_trained_on(tmp_path):
    write(tmp_path, "{train,test}/{ant,cat}/{0,1,2,3}.png")
    for path in [*(tmp_path / "train/ant").iterdir()]:
        shutil.copy(path, path.with_stem(f"copy {path.stem}"))
    data = opened(tmp_path, val_per_class=1)
    assert (len(data.train), len(data.val)) == (6 + 3, 2 + 1)
    digests = {data.train[i]["image"] for i in range(len(data.train))}
    assert not digests & {data.val[i]["image"] for i in range(len(data.val))}


def test_a_validation_split_is_used_beside_a_test_split_whatever_its_files_are_called(tmp_path):
    write(tmp_path, "{train,val,test}/{ant,cat}/{0,1,2}.png")
    data = opened(tmp_path)
    assert names(data.val)[0].startswith(f"{tmp_path}/val/ant")
    assert (len(data.train), len(data.val), len(data.test), data.left_out) == (6, 6, 6, ())
    before = [data.val[i]["image"] for i in range(6)]
    for name, new in (("0", "8"), ("2", "0")):
        (tmp_path / f"val/ant/{name}.png").rename(tmp_path / f"val/ant/{new}.png")
    again = opened(tmp_path)
    assert [again.val[i]["image"] for i in range(6)] == before
    assert again.sha256 == data.sha256
    (tmp_path / "val/cat/0.png").rename(tmp_path / "train/cat/9.png")
    assert opened(tmp_path).sha256 != data.sha256
    option = {"val_fraction": 0.2, "train_per_class": None}
    refused(
        r"^`--val-fraction` should come with data without a validation split", tmp_path, **option
    )


def test_copies_in_train_and_in_a_validation_split_are_said_or_dropped(tmp_path):
    write(tmp_path, "{train,val,test}/{ant,cat}/{0,1,2}.png")
    shutil.copy(tmp_path / "val/ant/0.png", tmp_path / "train/ant/9.png")
    (note,) = opened(tmp_path).notes
    assert re.match("1 image is both in train and in validation: ", note)
    dropped = opened(tmp_path, duplicates="drop")
    assert (len(dropped.train), len(dropped.val), dropped.notes) == (6, 6, ())


UNFIT = {
    "val_per_class": (
        3,
        r"^`--val-per-class` should leave images .* got 3, .* 3 of 3 of 'cat'\. L",
    ),
    "val_fraction": (0.9, r"^`--val-fraction` should leave images .* got 0.9, which takes 3 of 3"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_class_without_training_images_is_refused(tmp_path, name):
    value, match = UNFIT[name]
    folder(tmp_path / "train", ant=20, cat=3)
    folder(tmp_path / "test", ant=1)
    refused(match, tmp_path, train_per_class=None, **{name: value})
