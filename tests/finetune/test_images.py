"""From files to pixels: decoding by content, and crops."""

import os

import numpy as np
import pytest
from PIL import Image

from optax_dtnh.finetune.images import (
    Preprocessing,
    check,
    decode,
    evaluation_image,
    is_image,
    training_image,
)
from tests.finetune.pictures import AS_IS, BLUE, bomb, encoded, halves, photo

# --- decoding


def test_transparency_is_dropped_without_a_warning():
    content = encoded(halves(mode="P"), transparency=b"\x00\x80")
    assert decode(content).getpixel((15, 0)) == BLUE
    image = halves().convert("RGBA")
    image.putalpha(77)
    assert np.array_equal(decode(encoded(image)), halves())


def test_the_check_finds_what_decoding_would():
    whole = encoded(photo(), "JPEG")
    check(whole)
    for length in range(0, len(whole) - 2, len(whole) // 40):
        with pytest.raises((OSError, SyntaxError)):
            decode(whole[:length])
        with pytest.raises((OSError, SyntaxError)):
            check(whole[:length])


def test_an_image_is_known_by_its_suffix_or_content(tmp_path):
    contents = {
        "no_suffix": encoded(photo(), "JPEG"),
        "a.txt": encoded(photo(), "AVIF"),
        "bomb.png": bomb(),
        "truncated": encoded(photo(), "JPEG")[:900],
        "empty.jpg": b"",
        "photo.TGA": encoded(photo(), "TGA"),
    }
    others = {
        "empty": b"",
        "page.htm": b"<!DOCTYPE html>",
        "a.h": b"#define A_H x\n",
        "video.mpg": b"\x00\x00\x01\xb3" + bytes(99),
        "a.h5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    for name, content in (contents | others).items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "nowhere").symlink_to("nothing")
    (tmp_path / "nowhere.jpg").symlink_to("nothing")  # a broken image
    found = {path.name for path in tmp_path.iterdir() if is_image(path)}
    assert found == contents.keys() | {"nowhere.jpg"}


# --- crops and numbers


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
