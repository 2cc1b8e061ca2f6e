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


def test_classes_may_be_called_train_and_test(tmp_path):
    data = open_data(folder(tmp_path, train=2, test=2), train_per_class=1, seed=0)
    assert data.classes == ("test", "train")


def test_only_images_in_class_folders_count_and_folders_in_them(tmp_path):
    data = folder(tmp_path, ant=2, cat=2)
    image = (tmp_path / "ant" / "0.png").read_bytes()
    for name in ("loose.png", ".hidden/0.png", "ant/.0.png", "ant/notes.txt", "cat/big/2.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(image)
    train, test, classes, *_ = open_data(data, train_per_class=1, seed=0)
    found = sorted(names(train) + names(test))
    shorter = [name.removeprefix(data + "/") for name in found]
    assert classes == ("ant", "cat")
    assert shorter == ["ant/0.png", "ant/1.png", "cat/0.png", "cat/1.png", "cat/big/2.JPG"]


def test_links_to_folders_elsewhere_are_followed(tmp_path):
    folder(tmp_path / "elsewhere", cat=2)
    data = folder(tmp_path / "data", ant=2)
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    assert open_data(data, train_per_class=1, seed=0).classes == ("ant", "cat")


# --- which folders are refused


def test_what_is_no_folder(tmp_path):
    refused(r"got '.*nowhere', which does not exist", tmp_path / "nowhere")
    (tmp_path / "data.zip").touch()
    refused(r"got the file '.*data\.zip'\. Unpack", tmp_path / "data.zip")


def test_a_folder_without_images_in_class_folders(tmp_path):
    refused(r"folder of images for each class, got none in", tmp_path)
    (tmp_path / "0.png").write_bytes(encoded(halves()))
    refused(r"folder of images for each class, got none in", tmp_path)
    (tmp_path / "ant").mkdir()
    refused(r"folder of images for each class, got none in", tmp_path)


def test_an_empty_class(tmp_path):
    refused(r"got none in '.*bee' \(of 1 such", folder(tmp_path, ant=2, bee=0, cat=2))


def test_one_class_only(tmp_path):
    refused(r"at least 2 classes, got only 'ant'", folder(tmp_path, ant=3))


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    data = folder(tmp_path, ant=2, cat=2)
    monkeypatch.setattr("os.scandir", denied)  # root may read everything
    refused(r"can be read, got '.*' \(Permission denied\)", data)


def test_too_few_images_of_a_class_are_found_before_any_is_read(tmp_path, monkeypatch):
    data = folder(tmp_path, ant=5, cat=4)
    open_data(data, train_per_class=3, seed=0)
    monkeypatch.delattr("optax_dtnh.finetune.dataset.check_images")
    refused(r"5 or more .* on 4 and test .* 4 of 'cat'", data, train_per_class=4)


def test_too_few_training_images_of_a_class(tmp_path):
    folder(tmp_path / "train", ant=5, cat=4)
    folder(tmp_path / "test", ant=1)
    refused(r"5 or more .* on 5, got 4 of 'cat'", tmp_path, train_per_class=5)
    open_data(str(tmp_path), train_per_class=4, seed=0)


def test_a_class_to_test_that_is_not_trained(tmp_path):
    folder(tmp_path / "train", ant=2, cat=2)
    folder(tmp_path / "val", ant=2, yak=2)
    refused(r"got 'yak' in '.*val' only", tmp_path)


def test_a_flat_folder_without_a_number_per_class(tmp_path):
    data = folder(tmp_path, ant=2, cat=2)
    refused(r"split of its own where `--train-per-class`", data, train_per_class=None)


@pytest.mark.parametrize("target", ["..", "loop", "../.."])
def test_a_link_to_a_folder_around_it_or_to_itself(tmp_path, target):
    data = folder(tmp_path / "data", ant=2, cat=2)
    (tmp_path / "data" / "ant" / "loop").symlink_to(target)
    if target == "../..":
        (tmp_path / "ring").symlink_to("data")  # by another name
        data = str(tmp_path / "ring")
    refused(r"no link to a folder around it, got '.*loop.*'", data)


def test_a_class_that_is_a_link_to_its_folder(tmp_path):
    data = folder(tmp_path, ant=2, cat=2)
    (tmp_path / "dog").symlink_to(".")
    refused(r"no link to a folder around it, got '.*dog'", data)


# --- which images are refused

BROKEN = {
    "truncated.jpg": (encoded(photo(), "JPEG")[:-900], r"truncated"),
    "truncated.png": (encoded(photo())[:-900], r"truncated"),
    "text.jpg": (b"not an image", r"cannot identify image file 'text\.jpg'"),
    "empty.png": (b"", r"cannot identify image file 'empty\.png'"),
    "bomb.png": (bomb(), r"exceeds limit"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_named_with_the_reason(tmp_path, name):
    data = folder(tmp_path, ant=3, cat=3)
    content, reason = BROKEN[name]
    (tmp_path / "cat" / name).write_bytes(content)
    refused(
        rf"can be read, got '.*/cat/{name}' \(.*{reason}.*\), the first of 1 broken one am", data
    )


def test_a_link_that_leads_nowhere_is_a_broken_image(tmp_path):
    data = folder(tmp_path, ant=3, cat=3)
    (tmp_path / "cat" / "gone.jpg").symlink_to("nowhere")
    refused(r"gone\.jpg' \(.*No such file", data)


def test_all_broken_images_are_counted(tmp_path):
    folder(tmp_path / "train", ant=3, cat=3)
    folder(tmp_path / "test", ant=3, cat=3)
    for place in ("train/cat", "test/ant", "test/cat"):
        (tmp_path / place / "9.jpg").write_bytes(b"")
    refused(r"train/cat/9\.jpg' .* first of 3 broken ones among 15", tmp_path)


def test_broken_images_are_left_out_on_request(tmp_path):
    data = folder(tmp_path, ant=3, cat=3)
    for name, (content, _) in BROKEN.items():
        (tmp_path / "cat" / name).write_bytes(content)
    train, test, _, broken, _ = open_data(data, train_per_class=2, seed=0, skip_broken=True)
    assert sorted(broken) == sorted(f"{data}/cat/{name}" for name in BROKEN)
    assert sorted(grays(train) + grays(test)) == list(range(6))


def test_too_few_images_are_left(tmp_path):
    folder(tmp_path / "train", ant=3, cat=3)
    data = str(tmp_path / "train")
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"")
    match = r"3 or more readable images .* got 2 of 'cat'"
    refused(match, data, train_per_class=2, skip_broken=True)
    folder(tmp_path / "test", ant=1)
    (tmp_path / "test" / "ant" / "0.png").write_bytes(b"")
    refused(r"to train on and to test on, got 2 and 0 in", tmp_path, skip_broken=True)
