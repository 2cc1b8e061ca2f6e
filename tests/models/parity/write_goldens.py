"""Write the golden outputs of `tests/models/goldens` with torch.

.venv-parity/bin/python -m tests.models.parity.write_goldens
"""

import tempfile

from benchmarks.parity.outputs import of_torch
from benchmarks.parity.torch_models import library_of, loaded_reference
from optax_dtnh.models._names import SCHEMES
from tests.models import goldens
from tests.models.checkpoints import SAMPLES, seeded


def main(folder=goldens.FOLDER):
    for name in goldens.NAMES:
        goldens.write(name, goldens.golden(torch_outputs(name), name), folder)


def torch_outputs(name):
    """What torch gives in float64 for the seeded weights; our model only tells the sizes."""
    tensors = seeded(SAMPLES[name.split(".")[0]])
    (scheme,) = (scheme for scheme in SCHEMES if scheme.known_by in tensors)
    with tempfile.TemporaryDirectory() as temporary:
        model = goldens.load_sample(name, temporary)
    reference = loaded_reference(library_of(scheme), model, tensors)
    how = {"train": name.endswith("train"), "dtype": "float64"}
    return of_torch(reference, goldens.batch_of(name), model, scheme, **how)


if __name__ == "__main__":
    main()
