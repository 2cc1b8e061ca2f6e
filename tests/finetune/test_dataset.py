"""The images of a folder: which are trained and tested on, and what is refused."""

import pytest

from optax_dtnh.finetune.dataset import open_data
from tests.finetune.pictures import bomb, encoded, folder, grays, halves, names, photo, refused

# --- which images


def test_a_flat_folder_is_split_by_the_seed_into_n_per_class_and_the_rest(tmp_path):
    data = folder(tmp_path, dog=5, cat=4, ant=6)
    train, test, classes, broken, _ = open_data(data, train_per_class=3, seed=0)
    assert classes == ("ant", "cat", "dog")
    assert [train[i]["label"] for i in range(9)] == [0] * 3 + [1] * 3 + [2] * 3
    assert [test[i]["label"] for i in range(len(test))] == [0] * 3 + [1] + [2] * 2
    assert sorted(grays(train) + grays(test)) == list(range(15))
    assert broken == ()
    assert all(name.startswith(f"{data}/ant/") for name in names(train)[:3])


def test_the_draw_depends_on_the_seed_and_the_class_alone(tmp_path):
    data = folder(tmp_path, ant=9, cat=9)
    drawn = [names(open_data(data, train_per_class=4, seed=seed).train) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    folder(tmp_path, dog=9)
    assert names(open_data(data, train_per_class=4, seed=1).train)[:8] == drawn[0]


def test_the_checksum_is_of_images_and_labels_and_not_of_names(tmp_path):
    def checksum():
        return open_data(data, train_per_class=1, seed=0).sha256

    data = folder(tmp_path, ant=3, cat=3)
    before = checksum()
    tmp_path.joinpath("ant/2.png").rename(tmp_path / "ant/3.png")
    assert checksum() == before
    tmp_path.joinpath("ant/3.png").write_bytes(encoded(halves()))
    replaced = checksum()
    assert replaced != before
    tmp_path.joinpath("ant/3.png").rename(tmp_path / "cat/!.png")  # in the order as before
    assert checksum() not in (before, replaced)


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_a_folder_of_train_and_test_keeps_its_split(tmp_path, test_name):
    folder(tmp_path / "train", ant=3, cat=4)
    folder(tmp_path / test_name, cat=2)
    whole = open_data(str(tmp_path), train_per_class=None, seed=0)
    assert (len(whole.train), len(whole.test)) == (7, 2)
    assert [whole.test[i]["label"] for i in range(2)] == [1, 1]
    drawn = open_data(str(tmp_path), train_per_class=3, seed=0)
    assert (len(drawn.train), len(drawn.test)) == (6, 2)
    assert set(names(drawn.train)) < set(names(whole.train))


def test_only_images_in_class_folders_count_and_folders_and_links_in_them(tmp_path):
    data = folder(tmp_path, ant=2, test=2)  # a class may be called so
    folder(tmp_path.with_name("elsewhere"), cat=2)
    (tmp_path / "cat").symlink_to(tmp_path.with_name("elsewhere") / "cat")
    image = (tmp_path / "ant" / "0.png").read_bytes()
    for name in ("loose.png", ".hidden/0.png", "ant/.0.png", "ant/notes.txt", "cat/big/2.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(image)
    train, test, classes, *_ = open_data(data, train_per_class=1, seed=0)
    found = sorted(names(train) + names(test))
    shorter = [name.removeprefix(data + "/") for name in found]
    assert classes == ("ant", "cat", "test")
    assert shorter[:5] == ["ant/0.png", "ant/1.png", "cat/0.png", "cat/1.png", "cat/big/2.JPG"]
    assert shorter[5:] == ["test/0.png", "test/1.png"]


# --- which folders are refused


def at(root, **splits):
    """Write a folder of images for every split and return the root."""
    for split, classes in splits.items():
        folder(root / split, **classes)
    return root


ONLY_ANT, BOTH = {"ant": 3}, {"ant": 5, "cat": 4}
UNFIT = {
    "nowhere": (lambda root: root / "nowhere", r"got '.*nowhere', which does not exist", {}),
    "empty": (lambda root: root, r"folder of images for each class, got none in", {}),
    "an empty class": (
        lambda root: folder(root, ant=2, bee=0, cat=2),
        r"got none in '.*bee' \(of 1 such",
        {},
    ),
    "a level too high": (
        lambda root: at(root, ant=BOTH, cat=BOTH),
        r"folders alone in '.*ant'",
        {},
    ),
    "one class": (lambda root: folder(root, **ONLY_ANT), r"at least 2 classes, got only 'ant'", {}),
    "too few": (
        lambda root: folder(root, **BOTH),
        r"5 or more .* on 4 and test .* 4 of 'cat'",
        {"train_per_class": 4},
    ),
    "too few to train on": (
        lambda root: at(root, train=BOTH, test=ONLY_ANT),
        r"5 or more .* on 5, got 4 of 'cat'",
        {"train_per_class": 5},
    ),
    "a class of the test alone": (
        lambda root: at(root, train=BOTH, val={"ant": 2, "yak": 2}),
        r"got 'yak' in '.*val' only",
        {},
    ),
    "no number per class": (
        lambda root: folder(root, **BOTH),
        r"split of its own where `--train-per-class`",
        {"train_per_class": None},
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_folder_that_does_not_fit_is_refused_before_an_image_is_read(tmp_path, monkeypatch, case):
    write, match, options = UNFIT[case]
    monkeypatch.delattr("optax_dtnh.finetune.dataset.check_images")
    refused(match, write(tmp_path), **options)


def test_what_is_no_folder_or_cannot_be_read(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "data.zip").touch()
    refused(r"got the file '.*data\.zip'\. Unpack", tmp_path / "data.zip")
    data = folder(tmp_path, ant=2, cat=2)
    monkeypatch.setattr("os.scandir", denied)  # root may read everything
    refused(r"can be read, got '.*' \(Permission denied\)", data)


@pytest.mark.parametrize("target", ["..", "loop", "../.."])
def test_a_link_to_a_folder_around_it_or_to_itself(tmp_path, target):
    data = folder(tmp_path / "data", ant=2, cat=2)
    (tmp_path / "data" / "ant" / "loop").symlink_to(target)
    if target == "../..":
        (tmp_path / "ring").symlink_to("data")  # by another name
        data = str(tmp_path / "ring")
    refused(r"no link to a folder around it, got '.*loop.*'", data)


# --- which images are refused

BROKEN = {
    "truncated.jpg": (encoded(photo(), "JPEG")[:-900], r"truncated"),
    "truncated.png": (encoded(photo())[:-900], r"truncated"),
    "text.jpg": (b"not an image", r"cannot identify image file 'text\.jpg'"),
    "empty.png": (b"", r"cannot identify image file 'empty\.png'"),
    "bomb.png": (bomb(), r"exceeds limit"),
}


@pytest.mark.parametrize("name", [*BROKEN, "gone.jpg"])
def test_a_broken_image_is_named_with_the_reason(tmp_path, name):
    data = folder(tmp_path, ant=3, cat=3)
    content, reason = BROKEN.get(name, (None, "No such file"))
    path = tmp_path / "cat" / name
    path.symlink_to("nowhere") if content is None else path.write_bytes(content)
    match = rf"can be read, got '.*/cat/{name}' \(.*{reason}.*\), the first of 1 broken one am"
    refused(match, data)


def test_broken_images_are_left_out_on_request(tmp_path):
    data = folder(tmp_path, ant=3, cat=3)
    for name, (content, _) in BROKEN.items():
        (tmp_path / "cat" / name).write_bytes(content)
    train, test, _, broken, _ = open_data(data, train_per_class=2, seed=0, skip_broken=True)
    assert sorted(broken) == sorted(f"{data}/cat/{name}" for name in BROKEN)
    assert sorted(grays(train) + grays(test)) == list(range(6))


def test_too_few_images_are_left(tmp_path):
    data = folder(tmp_path / "train", ant=3, cat=3)
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"")
    match = r"3 or more readable images .* got 2 of 'cat'"
    refused(match, data, train_per_class=2, skip_broken=True)
    folder(tmp_path / "test", ant=1)
    (tmp_path / "test" / "ant" / "0.png").write_bytes(b"")
    refused(r"first of 2 broken ones among 7", tmp_path)
    refused(r"to train on and to test on, got 2 and 0 in", tmp_path, skip_broken=True)
