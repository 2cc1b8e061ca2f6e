"""Images of a folder: which are trained and tested on, their pixels, and what is refused."""

import io
import json
import pickle
import re
import struct
import time
import zlib
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from optax_dtnh.finetune.batches import evaluation_batches, batches_from
from optax_dtnh.finetune.images import (
    Preprocessing,
    check,
    decode,
    evaluation_image,
    preprocessing_of,
    training_image,
)
from optax_dtnh.finetune.dataset import open_data

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
# Pixels from 0 to 255, so that an image of one gray is recognized in a batch.
AS_IS = Preprocessing(image_size=8, resize=10, mean=(0, 0, 0), std=(1 / 255,) * 3)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(left=RED, right=BLUE, mode="RGB"):
    """A 16 x 8 image, its left half of one color and its right half of another."""
    image = Image.new("RGB", (16, 8), left)
    image.paste(right, (8, 0, 16, 8))
    return image.convert(mode)


def photo(size=(120, 90), seed=0):
    """A noisy gradient: a JPEG of it has data all over."""
    noise = np.random.default_rng(seed).integers(0, 60, (size[1], size[0], 3))
    ramp = np.linspace(0, 190, size[0])[None, :, None]
    return Image.fromarray((noise + ramp).astype(np.uint8))


def bomb():
    """A PNG of 70 bytes that says it has 400 million pixels."""
    small = encoded(Image.new("L", (1, 1)))
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + small[24:29]
    return small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]


def folder(root, **classes):
    """Write class folders of images, each of one gray of its own, and return the root as a str."""
    gray = 0
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(encoded(Image.new("L", (12, 9), gray)))
            gray += 1
    return str(root)


def grays(source):
    return [np.asarray(decode(source[i]["image"]))[0, 0, 0].item() for i in range(len(source))]


def names(source):
    return [source[i]["name"] for i in range(len(source))]


def refused(kind, match, data, **options):
    """Check that the data are refused for this reason, in one sentence and within a second."""
    start = time.perf_counter()
    with pytest.raises(kind, match=match) as raised:
        open_data(str(data), **{"train_per_class": 1, "seed": 0} | options)
    assert time.perf_counter() - start < 1
    assert type(raised.value) is kind
    assert re.fullmatch(r"`--[a-z-]+` should [^\n]+, got [^\n]+\. [^\n]+\.", str(raised.value))
    return str(raised.value)


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


def test_the_draw_depends_on_the_seed_alone(tmp_path):
    data = folder(tmp_path, ant=9, cat=9)
    drawn = [grays(open_data(data, train_per_class=4, seed=seed).train) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_another_class_leaves_the_draw_of_those_before_it_as_it_was(tmp_path):
    data = folder(tmp_path, ant=9, cat=9)
    before = names(open_data(data, train_per_class=4, seed=1).train)
    folder(tmp_path, dog=9)
    assert names(open_data(data, train_per_class=4, seed=1).train)[:8] == before


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
    tmp_path.joinpath("ant/3.png").rename(tmp_path / "cat/3.png")
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


# --- what is refused


def test_a_missing_folder(tmp_path):
    refused(FileNotFoundError, r"got '.*nowhere', which does not exist", tmp_path / "nowhere")


def test_a_file(tmp_path):
    (tmp_path / "data.zip").touch()
    refused(ValueError, r"got the file '.*data\.zip'\. Unpack", tmp_path / "data.zip")


def test_an_empty_folder(tmp_path):
    refused(ValueError, r"folder of images for each class, got none in", tmp_path)
    (tmp_path / "ant").mkdir()
    refused(ValueError, r"folder of images for each class, got none in", tmp_path)


def test_images_without_class_folders(tmp_path):
    (tmp_path / "0.png").write_bytes(encoded(halves()))
    refused(ValueError, r"folder of images for each class, got none in", tmp_path)


def test_an_empty_class(tmp_path):
    data = folder(tmp_path, ant=2, bee=0, cat=2)
    refused(ValueError, r"got none in '.*bee' \(of 1 such", data)


def test_one_class_only(tmp_path):
    refused(ValueError, r"at least 2 classes, got only 'ant'", folder(tmp_path, ant=3))


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    data = folder(tmp_path, ant=2, cat=2)
    monkeypatch.setattr("os.scandir", denied)  # root may read everything
    refused(ValueError, r"can be read, got '.*' \(Permission denied\)", data)


def test_too_few_images_of_a_class(tmp_path):
    data = folder(tmp_path, ant=5, cat=4)
    refused(ValueError, r"5 or more .* on 4 and test .* 4 of 'cat'", data, train_per_class=4)
    open_data(data, train_per_class=3, seed=0)


def test_too_few_training_images_of_a_class(tmp_path):
    folder(tmp_path / "train", ant=5, cat=4)
    folder(tmp_path / "test", ant=1)
    refused(ValueError, r"5 or more .* on 5, got 4 of 'cat'", tmp_path, train_per_class=5)
    open_data(str(tmp_path), train_per_class=4, seed=0)


def test_too_few_images_are_found_before_any_is_read(tmp_path, monkeypatch):
    monkeypatch.delattr("optax_dtnh.finetune.dataset.check_images")
    refused(ValueError, r"3 or more", folder(tmp_path, ant=3, cat=2), train_per_class=2)


def test_a_class_to_test_that_is_not_trained(tmp_path):
    folder(tmp_path / "train", ant=2, cat=2)
    folder(tmp_path / "val", ant=2, yak=2)
    refused(ValueError, r"got 'yak' in '.*val' only", tmp_path)


def test_a_flat_folder_without_a_number_per_class(tmp_path):
    data = folder(tmp_path, ant=2, cat=2)
    refused(ValueError, r"split of its own where `--train-per-class`", data, train_per_class=None)


def test_fewer_than_one_per_class(tmp_path):
    data = folder(tmp_path, ant=2, cat=2)
    refused(ValueError, r"`--train-per-class` should be at least 1, got 0", data, train_per_class=0)


@pytest.mark.parametrize("target", ["..", "loop", "../.."])
def test_a_link_to_a_folder_around_it_or_to_itself(tmp_path, target):
    data = folder(tmp_path / "data", ant=2, cat=2)
    (tmp_path / "data" / "ant" / "loop").symlink_to(target)
    if target == "../..":
        (tmp_path / "ring").symlink_to("data")  # by another name
        data = str(tmp_path / "ring")
    refused(ValueError, r"no link to a folder around it, got '.*loop.*'", data)


def test_a_class_that_is_a_link_to_its_folder(tmp_path):
    data = folder(tmp_path, ant=2, cat=2)
    (tmp_path / "dog").symlink_to(".")
    refused(ValueError, r"no link to a folder around it, got '.*dog'", data)


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
    match = rf"can be read, got '.*/cat/{name}' \(.*{reason}.*\), the first of 1 broken one among 7"
    refused(ValueError, match, data)


def test_a_link_that_leads_nowhere_is_a_broken_image(tmp_path):
    data = folder(tmp_path, ant=3, cat=3)
    (tmp_path / "cat" / "gone.jpg").symlink_to("nowhere")
    refused(ValueError, r"gone\.jpg' \(.*No such file", data)


def test_all_broken_images_are_counted(tmp_path):
    folder(tmp_path / "train", ant=3, cat=3)
    folder(tmp_path / "test", ant=3, cat=3)
    for place in ("train/cat", "test/ant", "test/cat"):
        (tmp_path / place / "9.jpg").write_bytes(b"")
    refused(ValueError, r"train/cat/9\.jpg' .* first of 3 broken ones among 15", tmp_path)


def test_broken_images_are_left_out_on_request(tmp_path):
    data = folder(tmp_path, ant=3, cat=3)
    for name, (content, _) in BROKEN.items():
        (tmp_path / "cat" / name).write_bytes(content)
    train, test, _, broken, _ = open_data(data, train_per_class=2, seed=0, skip_broken=True)
    assert sorted(broken) == sorted(f"{data}/cat/{name}" for name in BROKEN)
    assert sorted(grays(train) + grays(test)) == list(range(6))


def test_too_few_images_are_left_of_a_class(tmp_path):
    data = folder(tmp_path, ant=3, cat=3)
    (tmp_path / "cat" / "0.png").write_bytes(b"")
    match = r"3 or more readable images .* got 2 of 'cat'"
    refused(ValueError, match, data, train_per_class=2, skip_broken=True)


def test_no_image_to_test_on_is_left(tmp_path):
    folder(tmp_path / "train", ant=3, cat=3)
    folder(tmp_path / "test", ant=1)
    (tmp_path / "test" / "ant" / "0.png").write_bytes(b"")
    refused(ValueError, r"to train on and to test on, got 2 and 0 in", tmp_path, skip_broken=True)


# --- decoding


def test_colors_of_a_palette_are_looked_up():
    content = encoded(halves(mode="P"))
    pixels = np.asarray(decode(content))
    assert (pixels[0, 0].tolist(), pixels[0, 15].tolist()) == ([*RED], [*BLUE])
    # What a decoder that forgets the palette would give.
    assert np.asarray(Image.open(io.BytesIO(content))).shape == (8, 16)


def test_a_palette_with_transparency_gives_no_warning():
    content = encoded(halves(mode="P"), transparency=b"\x00\x80")
    assert decode(content).getpixel((15, 0)) == BLUE
    with pytest.warns(UserWarning, match="Transparency"):
        Image.open(io.BytesIO(content)).convert("RGB")


def test_transparency_is_dropped():
    image = halves().convert("RGBA")
    image.putalpha(77)
    assert np.array_equal(decode(encoded(image)), halves())


def test_cmyk_becomes_rgb():
    pixels = np.asarray(decode(encoded(halves(mode="CMYK"), "JPEG", quality=100)), int)
    assert np.abs(pixels[:, :4] - RED).max() < 20
    assert np.abs(pixels[:, 12:] - BLUE).max() < 20


def test_sixteen_bits_of_gray_are_scaled_and_not_clipped():
    gray = np.linspace(0, 65535, 8 * 16).astype(np.uint16).reshape(8, 16)
    content = encoded(Image.fromarray(gray))
    assert np.array_equal(np.asarray(decode(content))[..., 1], gray >> 8)
    clipped = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert (clipped == 255).mean() > 0.9


def test_the_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    content = encoded(halves(), "JPEG", quality=100, exif=exif)
    upright = decode(content)
    assert Image.open(io.BytesIO(content)).size == (16, 8)
    assert upright.size == (8, 16)
    top, bottom = np.asarray(upright, int)[2, 4], np.asarray(upright, int)[13, 4]
    assert np.abs(top - RED).max() < 20
    assert np.abs(bottom - BLUE).max() < 20


def test_of_an_animation_the_first_image_counts():
    frames = [Image.new("RGB", (4, 4), GREEN)]
    content = encoded(Image.new("RGB", (4, 4), RED), "GIF", save_all=True, append_images=frames)
    assert decode(content).getpixel((0, 0)) == RED


def test_the_check_finds_what_decoding_would():
    whole = encoded(photo(), "JPEG")
    check(whole)
    for length in range(0, len(whole) - 2, len(whole) // 40):
        with pytest.raises((OSError, SyntaxError)):
            decode(whole[:length])
        with pytest.raises((OSError, SyntaxError)):
            check(whole[:length])


# --- preprocessing


def test_an_image_to_evaluate_is_resized_whole_and_normalized():
    preprocessing = Preprocessing(image_size=4)
    image = evaluation_image(encoded(halves()), preprocessing)
    assert image.dtype == np.float32
    assert image.shape == (4, 4, 3)
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    np.testing.assert_allclose(image[0, 0], ([1, 0, 0] - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(image[3, 3], ([0, 0, 1] - mean) / std, rtol=1e-6)


def test_training_images_are_crops_half_of_them_mirrored():
    ramp = np.arange(100, dtype=np.uint8).reshape(10, 10)
    content, rng = encoded(Image.fromarray(ramp)), np.random.default_rng(0)
    crops = [training_image(content, AS_IS, rng)[..., 0].round() for _ in range(200)]
    mirrored = [crop[0, 1] < crop[0, 0] for crop in crops]
    corners = {
        crop[:, ::-1][0, 0] if m else crop[0, 0] for crop, m in zip(crops, mirrored, strict=True)
    }
    assert corners == {0, 1, 2, 10, 11, 12, 20, 21, 22}
    assert 70 < sum(mirrored) < 130
    upright = crops[0][:, ::-1] if mirrored[0] else crops[0]
    assert np.array_equal(upright, upright[0, 0] + ramp[:8, :8])


def test_without_files_or_overrides_a_checkpoint_expects_what_imagenet_does(tmp_path):
    assert preprocessing_of(tmp_path / "model.safetensors") == Preprocessing()
    assert preprocessing_of(tmp_path, image_size=None, mean=None) == Preprocessing()


def test_our_own_file_is_read_back(tmp_path):
    (tmp_path / "preprocessing.json").write_text(json.dumps(AS_IS._asdict()))
    assert preprocessing_of(tmp_path / "model.safetensors") == AS_IS == preprocessing_of(tmp_path)


def test_the_files_of_timm_and_hugging_face_are_read(tmp_path):
    config = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    timm = {"pretrained_cfg": config | {"input_size": [3, 384, 384], "crop_pct": 1.0}}
    theirs = {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(theirs))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    huggingface = Preprocessing(mean=(0.1,) * 3, std=(0.2,) * 3, interpolation="bicubic")
    assert preprocessing_of(tmp_path) == huggingface
    (tmp_path / "config.json").write_text(json.dumps(timm))
    assert preprocessing_of(tmp_path) == Preprocessing(384, 439, (0.5,) * 3, (0.5,) * 3, "bicubic")


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ({"size": 192}, 192),
        ({"size": {"height": 384, "width": 384}}, 384),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, 224),
    ],
)
def test_the_image_size_of_hugging_face_is_the_one_after_cropping(tmp_path, sizes, size):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(sizes))
    assert preprocessing_of(tmp_path).image_size == size


def test_overrides_win_and_the_size_before_cropping_follows(tmp_path):
    (tmp_path / "preprocessing.json").write_text(json.dumps(AS_IS._asdict()))
    assert preprocessing_of(tmp_path, image_size=112) == AS_IS._replace(image_size=112, resize=128)
    changed = preprocessing_of(tmp_path, image_size=28, resize=28, mean=(1, 2, 3))
    assert changed == AS_IS._replace(image_size=28, resize=28, mean=(1, 2, 3))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("preprocessing.json", "{"),
        ("preprocessing.json", '["image_size"]'),
        ("preprocessing.json", '{"size": 3}'),
        ("preprocessing.json", '{"image_size": 8, "resize": 4}'),
        ("preprocessing.json", '{"mean": [1, 2]}'),
        ("config.json", '{"pretrained_cfg": {"mean": ["a", 0, 0]}}'),
        ("config.json", '{"pretrained_cfg": {"interpolation": "random"}}'),
        ("preprocessor_config.json", '{"resample": 99}'),
        ("preprocessor_config.json", '{"size": {}}'),
    ],
)
def test_a_malformed_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"readable, got '.*{name}' \(.*\)\. Mend or remove"):
        preprocessing_of(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ({"image_size": 0}, "positive whole numbers"),
        ({"image_size": 2.5}, "positive whole numbers"),
        ({"image_size": 8, "resize": 7}, "`resize` should be at least `image_size`, 8, got 7"),
        ({"std": (1, 0, 1)}, "`std` positive"),
        ({"mean": (float("nan"), 0, 0)}, "`mean` should be finite"),
        ({"interpolation": "magic"}, "`interpolation` should be one of nearest, .*, got 'magic'"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, overrides, match):
    with pytest.raises(ValueError, match=match):
        preprocessing_of(tmp_path, **overrides)


# --- batches


@pytest.fixture
def source(tmp_path):
    return open_data(folder(tmp_path, ant=7, cat=6), train_per_class=5, seed=0).train


def batches(source, count, preprocessing=AS_IS, **options):
    iterator = batches_from(source, preprocessing, **{"batch_size": 4, "seed": 3} | options)
    taken = list(islice(iterator, count))
    iterator.close()
    return taken


def shown(taken):
    return np.concatenate([batch["image"][:, 0, 0, 0].round() for batch in taken]).tolist()


def assert_equal(taken, others):
    assert len(taken) == len(others) > 0
    for batch, other in zip(taken, others, strict=True):
        assert batch.keys() == other.keys()
        assert all(np.array_equal(batch[key], other[key]) for key in batch)


def test_a_training_batch_has_images_and_labels(source):
    (batch,) = batches(source, 1)
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "image": ((4, 8, 8, 3), "float32"),
        "label": ((4,), "int32"),
    }


def test_every_epoch_has_each_image_once_with_its_label_in_an_order_of_its_own(source):
    labels = {gray: source[i]["label"] for i, gray in enumerate(grays(source))}
    taken = batches(source, 5)  # two epochs; the third batch has images of both
    order = shown(taken)
    assert sorted(order[:10]) == sorted(order[10:]) == sorted(labels)
    assert order[:10] != order[10:]
    assert np.concatenate([b["label"] for b in taken]).tolist() == [labels[g] for g in order]


def test_a_source_smaller_than_a_batch_is_repeated_in_it(source):
    (batch,) = batches(source, 1, batch_size=25)
    counts = np.unique(batch["image"][:, 0, 0, 0].round(), return_counts=True)[1]
    assert sorted(counts.tolist()) == [2] * 5 + [3] * 5


def test_batches_depend_on_the_seed(source):
    taken = batches(source, 3)
    assert_equal(batches(source, 3), taken)
    assert shown(batches(source, 3, seed=4)) != shown(taken)


def test_every_epoch_crops_an_image_anew(tmp_path):
    root = tmp_path / "crops"
    folder(root, ant=2, cat=2)
    for file in root.glob("*/*.png"):
        file.write_bytes(encoded(photo((40, 40), seed=1)))
    source = open_data(str(root), train_per_class=1, seed=0).train
    crops = {b["image"].tobytes() for b in batches(source, 12, batch_size=1)}
    assert len(crops) > 6


def test_a_state_is_json_and_resumes_to_the_same_batches(source):
    straight = batches(source, 9)
    iterator = batches_from(source, AS_IS, batch_size=4, seed=3)
    list(islice(iterator, 4))
    state = json.loads(json.dumps(iterator.get_state()))
    ahead = list(islice(iterator, 2))
    iterator.set_state(state)  # backwards, in the same iterator
    assert_equal(list(islice(iterator, 2)), ahead)
    iterator.close()
    other = batches_from(source, AS_IS, batch_size=4, seed=3)
    other.set_state(state)
    assert_equal(list(islice(other, 5)), straight[4:])
    other.close()


def test_worker_processes_give_the_same_batches_and_take_the_same_state(source):
    straight = batches(source, 8)
    iterator = batches_from(source, AS_IS, batch_size=4, seed=3, workers=1)
    iterator.set_state({"next_batch": 3})
    assert_equal(list(islice(iterator, 4)), straight[3:7])
    state = iterator.get_state()
    iterator.close()
    other = batches_from(source, AS_IS, batch_size=4, seed=3)
    other.set_state(state)
    assert_equal([next(other)], straight[7:])
    other.close()


def test_the_shares_of_the_processes_make_up_the_global_batches(source):
    whole = batches(source, 6, batch_size=6)
    shares = [batches(source, 6, batch_size=6, shard=(p, 3)) for p in range(3)]
    assert all(len(batch["label"]) == 2 for share in shares for batch in share)
    steps = zip(*shares, strict=True)
    joined = [{k: np.concatenate([s[k] for s in step]) for k in step[0]} for step in steps]
    assert_equal(joined, whole)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(source):
    with pytest.raises(ValueError, match=r"multiple of the number of processes, 3, got 4\. Ch"):
        batches_from(source, AS_IS, batch_size=4, seed=0, shard=(0, 3))
    with pytest.raises(ValueError, match=r"`--batch` should be"):
        batches_from(source, AS_IS, batch_size=0, seed=0)


def test_no_images_to_train_on_are_refused():
    with pytest.raises(ValueError, match=r"`source` should hold images to train on, got none\."):
        batches_from([], AS_IS, batch_size=4, seed=0)


def test_an_image_damaged_after_the_check_is_named(source):
    damaged = [source[i] for i in range(4)]
    damaged[2]["image"] = damaged[2]["image"][:40]
    name = re.escape(damaged[2]["name"])
    with pytest.raises(ValueError, match=rf"can be read, got '{name}' \("):
        batches(damaged, 1)
    with pytest.raises(ValueError, match=rf"can be read, got '{name}' \("):
        next(evaluation_batches(damaged, AS_IS, batch_size=4))
    damaged[2]["image"] = b""
    file = re.escape(damaged[2]["name"].rsplit("/")[-1])
    with pytest.raises(ValueError, match=rf"'{name}' \(cannot identify image file '{file}'\)"):
        next(evaluation_batches(damaged, AS_IS, batch_size=4))


def test_evaluation_takes_each_image_once_in_order_and_fills_the_last_batch_up(source):
    taken = list(evaluation_batches(source, AS_IS, batch_size=4))
    assert [b["valid"].tolist() for b in taken] == [[True] * 4] * 2 + [[True] * 2 + [False] * 2]
    assert all(b["image"].shape == (4, 8, 8, 3) for b in taken)
    assert taken[2]["image"].dtype == np.float32
    assert taken[2]["label"].dtype == np.int32
    assert shown(taken)[:10] == grays(source)
    assert taken[2]["label"][:2].tolist() == [source[i]["label"] for i in (8, 9)]
    assert not taken[2]["image"][2:].any()


def test_sources_are_picklable(source):
    assert names(pickle.loads(pickle.dumps(source))) == names(source)
