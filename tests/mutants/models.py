"""Faults in the reference models, and in what loads and saves them."""

from tests.mutants import Mutant

MODELS = "optax_dtnh/models/"
GOLDENS = "tests/models/test_model_goldens.py"
NETWORKS = "tests/models/test_models.py"
TRANSFER = "tests/models/test_model_transfer.py"
PRETRAINED = "tests/models/test_pretrained.py"
REFUSED = "tests/models/test_refused_checkpoints.py"
ODD = "tests/models/test_odd_checkpoints.py"
TOLD = "tests/models/test_told_facts.py"
FILES = "tests/models/test_checkpoint_files.py"
HUB = "tests/models/test_hub.py"
FACTS = "tests/models/test_facts.py"

MUTANTS = [
    # The networks
    Mutant(MODELS + "_layers.py", "padding=size // 2", 'padding="SAME"', GOLDENS),
    Mutant(MODELS + "_layers.py", '"epsilon": 1e-5', '"epsilon": 1e-3', GOLDENS),
    Mutant(MODELS + "_layers.py", '"momentum": 0.9', '"momentum": 0.99', NETWORKS),
    Mutant(MODELS + "_layers.py", "(n / (n - 1))", "1", NETWORKS),
    Mutant(
        MODELS + "_layers.py", '"use_fast_variance": False', '"use_fast_variance": True', NETWORKS
    ),
    Mutant(
        MODELS + "_layers.py",
        "super().__call__(x).astype(x.dtype)\n        n",
        "super().__call__(x)\n        n",
        NETWORKS,
    ),
    Mutant(MODELS + "_layers.py", "if frozen else", "if not frozen else", TRANSFER),
    Mutant(
        MODELS + "_resnet.py", "padding: Any = ((1, 1), (1, 1))", 'padding: Any = "SAME"', GOLDENS
    ),
    Mutant(
        MODELS + "_resnet.py",
        "y = nnx.relu(self.norm2(self.conv2(y)))",
        "y = self.norm2(self.conv2(y))",
        GOLDENS,
    ),
    Mutant(MODELS + "_resnet.py", "2 if i and not j else 1", "1 if i and not j else 1", GOLDENS),
    Mutant(MODELS + "_activations.py", "approximate=False", "approximate=True", GOLDENS),
    Mutant(MODELS + "_vit.py", "epsilon: float = 1e-6", "epsilon: float = 1e-5", NETWORKS),
    Mutant(MODELS + "_names.py", "epsilon: float = 1e-6", "epsilon: float = 1e-5", PRETRAINED),
    # The transfer
    Mutant(MODELS + "_transfer.py", "arrays=True)\n    copy", "arrays=False)\n    copy", TRANSFER),
    Mutant(MODELS + "_transfer.py", "    copy.frozen = False\n", "", TRANSFER),
    Mutant(MODELS + "_transfer.py", "not _of_head(path)", "not _of_head(path[1:])", TRANSFER),
    Mutant(
        MODELS + "_transfer.py",
        '{"use_running_average": True, "frozen": True}',
        '{"frozen": True}',
        TRANSFER,
    ),
    # Loading and saving
    Mutant(
        MODELS + "_layout.py",
        "transpose(*range(2, array.ndim), 1, 0)",
        "transpose(*range(2, array.ndim), 0, 1)",
        PRETRAINED,
    ),
    Mutant(
        MODELS + "_names.py",
        'HF_BLOCK + "layer.{i0}.normalization."',
        'HF_BLOCK + "layer.{i}.normalization."',
        PRETRAINED,
    ),
    Mutant(MODELS + "_names.py", 'TV_BLOCK + "mlp.3."', 'TV_BLOCK + "mlp.2."', PRETRAINED),
    Mutant(MODELS + "_names.py", "epsilon=1e-12", "epsilon=1e-6", PRETRAINED),
    Mutant(MODELS + "_agreement.py", " - excused", "", ODD),
    Mutant(
        MODELS + "_agreement.py", '"unexpected": unused - counters', '"unexpected": set()', REFUSED
    ),
    Mutant(MODELS + "_pretrained.py", "check_finite(file.path, arrays)", "pass", REFUSED),
    Mutant(MODELS + "_pretrained.py", "agreement.check_variances(file, arrays)", "pass", REFUSED),
    Mutant(MODELS + "_vit.py", "(1152, 4304): 16", "(1152, 4304): 18", TOLD),
    Mutant(MODELS + "_settled.py", "**said, **_own(file)", "**_own(file), **said", TOLD),
    Mutant(MODELS + "_agreement.py", "FOREIGN[type(model)]", "()", TOLD),
    Mutant(MODELS + "_agreement.py", "        if said != size", "        if False", TOLD),
    Mutant(MODELS + "_recognition.py", "len(found) > 1", "len(found) > 2", ODD),
    Mutant(MODELS + "_recognition.py", "return matching | ", "return ", REFUSED),
    Mutant(MODELS + "_names.py", '".mlp.linear_2."', '".mlp.linear_3."', ODD),
    Mutant(MODELS + "_facts.py", "_implied(facts) | facts", "facts", FACTS),
    Mutant(MODELS + "_facts_hugging_face.py", "m + 1 for m", "m - 1 for m", FACTS),
    Mutant(MODELS + "_agreement.py", "    if kind is None:", "    if False:", TOLD),
    Mutant(MODELS + "_positions.py", "np.clip(below + tap, 0", "np.clip(below + tap, 1", ODD),
    Mutant(MODELS + "_positions.py", '"cubic", antialias', '"linear", antialias', ODD),
    Mutant(MODELS + "_saving.py", "        metadata |= {", "        _ = {", PRETRAINED),
    Mutant(MODELS + "_checkpoint.py", "digest != sha256.lower()", "digest != sha256", FILES),
    Mutant(
        MODELS + "_checkpoint.py",
        "    if sha256 is not None:\n        _check_digest(path, sha256)\n",
        "",
        FILES,
    ),
    Mutant(MODELS + "_facts.py", 'facts.pop("resize", None)', "pass", FACTS),
    Mutant(MODELS + "_facts_timm.py", "math.floor(", "round(", FACTS),
    Mutant(MODELS + "_facts_hugging_face.py", "whole > crop", "True", FACTS),
    Mutant(MODELS + "_hub.py", "elif unknown := _unknown(file):", "elif unknown := []:", HUB),
    Mutant(MODELS + "_hub.py", "follow_redirects=False", "follow_redirects=True", HUB),
    Mutant(MODELS + "_hub.py", "constants.HF_HUB_DISABLE_TELEMETRY = telemetry_off", "pass", HUB),
    Mutant(MODELS + "_hub.py", 'endpoint.rstrip("/")', "endpoint", HUB),
    Mutant(MODELS + "_hub.py", '{"", ".", ".."}', '{"", "."}', HUB),
]
