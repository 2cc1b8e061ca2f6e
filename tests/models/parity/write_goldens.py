"""Write the golden outputs of `tests/models/goldens` with torch.

.venv-parity/bin/python -m tests.models.parity.write_goldens
"""

import json
import tempfile
from functools import partial

import numpy as np
from flax import nnx

from benchmarks.parity.compare import CLASSES, TRAIN
from benchmarks.parity.outputs import of_torch, tensors_of
from benchmarks.parity.torch_models import LIBRARIES, loaded_reference
from benchmarks.parity.weights import seeded
from optax_dtnh.models import Basic, Bottleneck, ResNet, ViT
from tests.models import goldens

NETWORKS = {  # the library, and our network of the same sizes
    "resnet18-hugging-face": ("Hugging Face ResNet", partial(ResNet, (2, 2, 2, 2), Basic, width=8)),
    "resnet50-hugging-face": (
        "Hugging Face ResNet",
        partial(ResNet, (3, 4, 6, 3), Bottleneck, width=8),
    ),
    "vit-hugging-face": ("Hugging Face ViT", partial(ViT, 128, heads=2, image_size=48)),
}
KINDS = {"eval": ("logits", "features"), "train": TRAIN.bars}


def golden(name):
    """What a file holds: torch's tensors, and what torch gives in float64 for the seeded ones."""
    library, build = NETWORKS[name]
    library = LIBRARIES[library]
    sizes = nnx.eval_shape(lambda: build(classes=CLASSES, rngs=nnx.Rngs(0)))
    shapes = {n: [*x.shape] for n, x in tensors_of(library.build(sizes)).items()}
    with tempfile.TemporaryDirectory() as folder:
        model = goldens.load_sample(name, folder, shapes)
    reference, batch = loaded_reference(library, model, seeded(shapes)), goldens.batch_of(name)
    found = {"tensors": shapes}
    for mode in ("eval", "train") if name == "resnet18-hugging-face" else ("eval",):
        how = {"train": mode == "train", "dtype": "float64"}
        outputs = of_torch(reference, batch, model, library.scheme, **how)
        found[mode] = goldens.summaries(outputs, KINDS[mode])
    return found


def nine_digits(array):
    return np.vectorize(lambda x: float(f"{x:.9g}"))(array).tolist()


if __name__ == "__main__":
    for name in NETWORKS:
        parts = [f'"{k}": {json.dumps(x, default=nine_digits)}' for k, x in golden(name).items()]
        (goldens.FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
