"""How images are prepared: what a checkpoint says, what an option changes, and what a run tells."""

import json

import numpy as np
import pytest
from PIL import Image

from optax_dtnh.finetune import preprocessing, settings
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.images import evaluation_image, training_image
from optax_dtnh.finetune.preprocessing import Preprocessing, preprocessing_facts, preprocessing_from
from optax_dtnh.models import _fields
from tests.finetune.pictures import AS_IS, halves


def preprocessing_of(checkpoint, **overrides):
    return preprocessing_from(preprocessing_facts(checkpoint, **overrides))


def written(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def test_without_files_a_checkpoint_expects_what_imagenet_does_and_our_own_is_read_back(tmp_path):
    assert preprocessing_of(tmp_path / "model.safetensors") == Preprocessing()
    assert preprocessing_of(tmp_path, image_size=None, mean=None) == Preprocessing()
    written(tmp_path, "preprocessing.json", AS_IS._asdict())
    assert preprocessing_of(tmp_path / "model.safetensors") == AS_IS
    assert preprocessing_of(tmp_path, image_size=112) == AS_IS._replace(image_size=112, resize=128)
    changed = preprocessing_of(tmp_path, image_size=28, resize=28, mean=[0, 0.5, 1])
    assert changed == AS_IS._replace(image_size=28, resize=28, mean=(0, 0.5, 1))


def test_every_value_is_told_with_its_origin_and_what_is_not_used_too(tmp_path):
    (line,) = preprocessing.described(preprocessing_facts(tmp_path), crops=False)
    assert line.startswith("images: image_size 224 (default for ImageNet), mean 0.485 0.456 0")
    timm = {"architecture": "resnet50", "input_size": [3, 224, 224], "crop_pct": 0.9}
    written(tmp_path, "config.json", timm)
    written(tmp_path, "preprocessor_config.json", {"do_rescale": False})
    assert preprocessing.described(preprocessing_facts(tmp_path, std=(0.5, 0.5, 0.5))) == [
        "images: image_size 224 (config.json), resize 248 (crop_pct of config.json), "
        "mean 0.485 0.456 0.406 (default for ImageNet), std 0.5 0.5 0.5 (--std), interpolation "
        "bicubic (default of timm), rescale 1 (do_rescale of preprocessor_config.json)",
    ]
    written(tmp_path, "config.json", {"model_type": "t5"})
    *_, last = preprocessing.described(preprocessing_facts(tmp_path))
    assert last == "not used: model_type t5 (config.json)"


def test_images_that_are_not_square_are_refused_unless_a_size_is_given(tmp_path):
    written(tmp_path, "preprocessor_config.json", {"size": {"height": 64, "width": 32}})
    match = r"^`--image-size` should be given .*, got 64 x 32 in preprocessor_config\.json\. Pass"
    with pytest.raises(UsageError, match=match):
        preprocessing_of(tmp_path)
    assert preprocessing_of(tmp_path, image_size=56)[:2] == (56, 64)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (
            {"image_size": 0},
            "`--image-size` should be a positive whole number up to 1000000, got 0",
        ),
        ({"resize": 2.5}, "`--resize` should be a positive whole number up to 1000000, got 2.5"),
        ({"image_size": 8, "resize": 7}, r"`--resize` .* size, 8 \(--image-size\), got 7 \(--res"),
        ({"resize": 99}, r"`--resize` .* size, 224 \(default for I.*\), got 99"),
        ({"mean": (float("nan"), 0, 0)}, "`--mean` should be a finite number"),
        ({"mean": (123.7, 0, 0)}, r"`--mean` should be between 0 and 1, .* 123.7 0 0 \(--mean"),
        ({"interpolation": "magic"}, "`--interpolation` should be one of nearest, .*, got magic"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, overrides, match):
    with pytest.raises(UsageError, match=match):
        preprocessing_of(tmp_path, **overrides)


def test_a_malformed_file_is_an_error_of_the_command(tmp_path):
    written(tmp_path, "preprocessing.json", {"image_size": 8, "resize": 4})
    with pytest.raises(UsageError, match=r"8 \(preprocessing\.json\), got 4 \(preprocessing\.json"):
        preprocessing_of(tmp_path)
    (tmp_path / "preprocessing.json").write_text("{")
    with pytest.raises(UsageError, match=r"an object in JSON, got '.*preprocessing\.json'"):
        preprocessing_of(tmp_path)


def test_the_option_knows_every_interpolation_that_a_file_can_name():
    assert tuple(_fields.INTERPOLATIONS.values()) == settings.INTERPOLATIONS
    assert all(name.upper() in Image.Resampling.__members__ for name in settings.INTERPOLATIONS)


def test_an_image_to_evaluate_is_resized_whole_and_normalized():
    how = Preprocessing(image_size=4)
    image = evaluation_image(halves(), how)
    assert (image.dtype, image.shape) == (np.float32, (4, 4, 3))
    colors = (np.eye(3)[[0, 2]] - how.mean) / how.std
    np.testing.assert_allclose(image[[0, 3], [0, 3]], colors, rtol=1e-6)


def test_training_images_are_crops_half_of_them_mirrored():
    ramp = np.arange(100, dtype=np.uint8).reshape(10, 10)
    image, rng = Image.fromarray(ramp).convert("RGB"), np.random.default_rng(0)
    crops = [training_image(image, AS_IS, rng)[..., 0].round() for _ in range(200)]
    mirrored = [crop[0, 1] < crop[0, 0] for crop in crops]
    upright = [crop[:, ::-1] if m else crop for crop, m in zip(crops, mirrored, strict=True)]
    corners = {crop[0, 0] for crop in upright}
    assert corners == {0, 1, 2, 10, 11, 12, 20, 21, 22}
    assert 70 < sum(mirrored) < 130
    assert np.array_equal(upright[0], upright[0][0, 0] + ramp[:8, :8])
