"""Faults in the reference models, and in what loads and saves them."""

from tests.mutants import listed

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

MUTANTS = listed(
    "optax_dtnh/models",
    {
        ("_layers.py", GOLDENS): [
            ("padding=size // 2", 'padding="SAME"'),
            ('"epsilon": 1e-5', '"epsilon": 1e-3'),
        ],
        ("_layers.py", NETWORKS): [
            ('"momentum": 0.9', '"momentum": 0.99'),
            ("(n / (n - 1))", "1"),
            ('"use_fast_variance": False', '"use_fast_variance": True'),
            ("super().__call__(x).astype(x.dtype)\n        n", "super().__call__(x)\n        n"),
        ],
        ("_layers.py", TRANSFER): [("if frozen else", "if not frozen else")],
        ("_resnet.py", GOLDENS): [
            ("padding: Any = ((1, 1), (1, 1))", 'padding: Any = "SAME"'),
            ("y = nnx.relu(self.norm2(self.conv2(y)))", "y = self.norm2(self.conv2(y))"),
            ("2 if i and not j else 1", "1 if i and not j else 1"),
        ],
        ("_activations.py", GOLDENS): [("approximate=False", "approximate=True")],
        ("_vit.py", NETWORKS): [("epsilon: float = 1e-6", "epsilon: float = 1e-5")],
        ("_names.py", PRETRAINED): [
            ("epsilon: float = 1e-6", "epsilon: float = 1e-5"),
            ('HF_BLOCK + "layer.{i0}.normalization."', 'HF_BLOCK + "layer.{i}.normalization."'),
            ('TV_BLOCK + "mlp.3."', 'TV_BLOCK + "mlp.2."'),
            ("epsilon=1e-12", "epsilon=1e-6"),
        ],
        ("_transfer.py", TRANSFER): [
            ("arrays=True)\n    copy", "arrays=False)\n    copy"),
            ("    copy.frozen = False\n", ""),
            ("not _of_head(path)", "not _of_head(path[1:])"),
            ('{"use_running_average": True, "frozen": True}', '{"frozen": True}'),
        ],
        ("_layout.py", PRETRAINED): [
            ("transpose(*range(2, array.ndim), 1, 0)", "transpose(*range(2, array.ndim), 0, 1)")
        ],
        ("_agreement.py", ODD): [(" - excused", "")],
        ("_agreement.py", REFUSED): [('"unexpected": unused - counters', '"unexpected": set()')],
        ("_pretrained.py", REFUSED): [
            ("check_finite(file.path, arrays)", "pass"),
            ("agreement.check_variances(file, arrays)", "pass"),
        ],
        ("_vit.py", TOLD): [("(1152, 4304): 16", "(1152, 4304): 18")],
        ("_settled.py", TOLD): [("**said, **_own(file)", "**_own(file), **said")],
        ("_agreement.py", TOLD): [
            ("FOREIGN[type(model)]", "()"),
            ("        if said != size", "        if False"),
            ("    if kind is None:", "    if False:"),
        ],
        ("_recognition.py", ODD): [("len(found) > 1", "len(found) > 2")],
        ("_recognition.py", REFUSED): [("return matching | ", "return ")],
        ("_names.py", ODD): [('".mlp.linear_2."', '".mlp.linear_3."')],
        ("_positions.py", ODD): [
            ("np.clip(below + tap, 0", "np.clip(below + tap, 1"),
            ('"cubic", antialias', '"linear", antialias'),
        ],
        ("_saving.py", PRETRAINED): [("        metadata |= {", "        _ = {")],
        ("_checkpoint.py", FILES): [
            ("digest != sha256.lower()", "digest != sha256"),
            ("    if sha256 is not None:\n        _check_digest(path, sha256)\n", ""),
        ],
        ("_facts.py", FACTS): [
            ('facts.pop("resize", None)', "pass"),
            ("_implied(facts) | facts", "facts"),
        ],
        ("_facts_timm.py", FACTS): [("math.floor(", "round(")],
        ("_facts_hugging_face.py", FACTS): [("whole > crop", "True"), ("m + 1 for", "m - 1 for")],
        ("_hub.py", HUB): [
            ("elif unknown := _unknown(file):", "elif unknown := []:"),
            ("follow_redirects=False", "follow_redirects=True"),
            ("constants.HF_HUB_DISABLE_TELEMETRY = telemetry_off", "pass"),
            ('endpoint.rstrip("/")', "endpoint"),
            ('{"", ".", ".."}', '{"", "."}'),
        ],
    },
)
