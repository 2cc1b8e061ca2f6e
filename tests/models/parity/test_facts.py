"""What we know by heart of torchvision and Hugging Face, against their own words."""

import json
from pathlib import Path

import pytest
import transformers
from torchvision import models

from optax_dtnh.models._facts import (
    FILES,
    MODEL_DEFAULTS,
    PROCESSOR_DEFAULTS,
    facts_beside,
    implied,
)
from optax_dtnh.models._fields import NAMES, Fact

NETWORKS = "resnet18 resnet34 resnet50 resnet101 resnet152".split()
NETWORKS += "vit_b_16 vit_b_32 vit_l_16 vit_l_32 vit_h_14".split()
PUBLISHED = {Path(w.url).name: (n, w) for n in NETWORKS for w in models.get_model_weights(n)}


def test_every_published_file_is_known_and_no_other():
    assert {Path(name).stem for name in PUBLISHED} == FILES.keys()


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_published_name_tells_what_the_metadata_do(name):
    network, weights = PUBLISHED[name]
    transforms = weights.transforms()
    facts = {key: fact.value for key, fact in facts_beside(Path(name)).items()}
    assert facts.pop("resize", *transforms.crop_size) == transforms.resize_size[0]
    assert facts == {
        "architecture": network,
        "image_size": transforms.crop_size[0],
        "interpolation": transforms.interpolation.value,
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        **{n: x.value for n, x in implied({"architecture": Fact(network, "")}).items()},
    }


@pytest.mark.parametrize("kind", MODEL_DEFAULTS)
def test_a_silent_configuration_means_what_transformers_takes_it_for(kind):
    config = transformers.AutoConfig.for_model(kind)
    theirs = {NAMES.get(key, key): value for key, value in config.to_dict().items()}
    assert MODEL_DEFAULTS[kind] == {name: theirs[name] for name in MODEL_DEFAULTS[kind]}


@pytest.mark.parametrize("kind", PROCESSOR_DEFAULTS)
def test_a_silent_processor_means_what_transformers_takes_it_for(kind, tmp_path):
    processor = getattr(transformers, f"{kind}ImageProcessor")()
    silent = {"image_processor_type": f"{kind}ImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(silent))
    facts = {key: fact.value for key, fact in facts_beside(tmp_path).items()}
    assert facts == {
        "mean": tuple(processor.image_mean),
        "std": tuple(processor.image_std),
        "interpolation": processor.resample.name.lower(),
    }
