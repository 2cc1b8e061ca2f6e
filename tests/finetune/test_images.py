"""From files to pixels: decoding, crops, and the preprocessing that a checkpoint asks for."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.images import (
    Preprocessing,
    check,
    decode,
    evaluation_image,
    is_image,
    preprocessing_of,
    training_image,
)
from tests.finetune.pictures import AS_IS, BLUE, GREEN, RED, bomb, encoded, halves, photo

# --- decoding


@pytest.mark.parametrize(("mode", "kind"), [("P", "PNG"), ("CMYK", "JPEG")])
def test_every_mode_becomes_rgb(mode, kind):
    pixels = np.asarray(decode(encoded(halves(mode=mode), kind, quality=100)), int)
    assert np.abs(pixels[:, :4] - RED).max() < 20
    assert np.abs(pixels[:, 12:] - BLUE).max() < 20


def test_transparency_is_dropped_without_a_warning():
    content = encoded(halves(mode="P"), transparency=b"\x00\x80")
    assert decode(content).getpixel((15, 0)) == BLUE
    image = halves().convert("RGBA")
    image.putalpha(77)
    assert np.array_equal(decode(encoded(image)), halves())


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


# --- the preprocessing of a checkpoint


def test_an_image_to_evaluate_is_resized_whole_and_normalized():
    preprocessing = Preprocessing(image_size=4)
    image = evaluation_image(halves(), preprocessing)
    assert image.dtype == np.float32
    assert image.shape == (4, 4, 3)
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    np.testing.assert_allclose(image[0, 0], ([1, 0, 0] - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(image[3, 3], ([0, 0, 1] - mean) / std, rtol=1e-6)


def test_training_images_are_crops_half_of_them_mirrored():
    ramp = np.arange(100, dtype=np.uint8).reshape(10, 10)
    image, rng = Image.fromarray(ramp).convert("RGB"), np.random.default_rng(0)
    crops = [training_image(image, AS_IS, rng)[..., 0].round() for _ in range(200)]
    mirrored = [crop[0, 1] < crop[0, 0] for crop in crops]
    corners = {
        crop[:, ::-1][0, 0] if m else crop[0, 0] for crop, m in zip(crops, mirrored, strict=True)
    }
    assert corners == {0, 1, 2, 10, 11, 12, 20, 21, 22}
    assert 70 < sum(mirrored) < 130
    upright = crops[0][:, ::-1] if mirrored[0] else crops[0]
    assert np.array_equal(upright, upright[0, 0] + ramp[:8, :8])


def test_without_files_a_checkpoint_expects_what_imagenet_does_and_our_own_is_read_back(tmp_path):
    assert preprocessing_of(tmp_path / "model.safetensors") == Preprocessing()
    assert preprocessing_of(tmp_path, image_size=None, mean=None) == Preprocessing()
    (tmp_path / "preprocessing.json").write_text(json.dumps(AS_IS._asdict()))
    assert preprocessing_of(tmp_path / "model.safetensors") == AS_IS
    assert preprocessing_of(tmp_path, image_size=112) == AS_IS._replace(image_size=112, resize=128)
    changed = preprocessing_of(tmp_path, image_size=28, resize=28, mean=(1, 2, 3))
    assert changed == AS_IS._replace(image_size=28, resize=28, mean=(1, 2, 3))


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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("preprocessing.json", "{"),
        ("preprocessing.json", '{"size": 3}'),
        ("preprocessing.json", '{"image_size": 8, "resize": 4}'),
        ("preprocessing.json", '{"mean": [1, 2]}'),
        ("config.json", '{"pretrained_cfg": {"mean": ["a", 0, 0]}}'),
        ("config.json", '{"pretrained_cfg": {"interpolation": "random"}}'),
        ("preprocessor_config.json", '{"size": {}}'),
    ],
)
def test_a_malformed_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=rf"readable, got '.*{name}' \(.*\)\. Mend or remove"):
        preprocessing_of(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ({"image_size": 0}, "positive whole numbers"),
        ({"image_size": 8, "resize": 7}, "`resize` should be at least `image_size`, 8, got 7"),
        ({"std": (1, 0, 1)}, "`std` positive"),
        ({"mean": (float("nan"), 0, 0)}, "`mean` should be finite"),
        ({"interpolation": "magic"}, "`interpolation` should be one of nearest, .*, got 'magic'"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, overrides, match):
    with pytest.raises(UsageError, match=match):
        preprocessing_of(tmp_path, **overrides)


def test_an_image_is_known_by_its_content(tmp_path):
    contents = {
        "no_suffix": encoded(photo(), "JPEG"),
        "a.txt": encoded(photo(), "AVIF"),
        "bomb.png": bomb(),
        "truncated.jpg": encoded(photo(), "JPEG")[:900],
    }
    others = {
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html>",
        "a.h": b"#define A_H x\n",
        "video.mpg": b"\x00\x00\x01\xb3" + bytes(99),
        "a.h5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    for name, content in (contents | others).items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "nowhere.jpg").symlink_to("nothing")
    assert {path.name for path in tmp_path.iterdir() if is_image(path)} == contents.keys()
