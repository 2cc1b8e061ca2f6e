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
        ("_resnet.py", GOLDENS): [
            ("padding: Any = ((1, 1), (1, 1))", 'padding: Any = "SAME"'),
            ("y = nnx.relu(self.norm2(self.conv2(y)))", "y = self.norm2(self.conv2(y))"),
            ("2 if i and not j else 1", "1 if i and not j else 1"),
        ],
        ("_vit.py", GOLDENS): [("approximate=False", "approximate=True")],
        ("_vit.py", NETWORKS): [("epsilon: float = 1e-6", "epsilon: float = 1e-5")],
        ("_names.py", PRETRAINED): [
            ("epsilon: float = 1e-6", "epsilon: float = 1e-5"),
            ('"layer.{i0}.normalization."', '"layer.{i}.normalization."'),
            ('"attn.proj.", "self_attention', '"attn.out.", "self_attention'),
            ("POOLER, 1e-12", "POOLER, 1e-6"),
            ("transpose(*range(2, array.ndim), 1, 0)", "transpose(*range(2, array.ndim), 0, 1)"),
        ],
        ("_transfer.py", TRANSFER): [
            ("nnx.clone(model, arrays=True), lambda", "nnx.clone(model), lambda"),
            ('getattr(kind, "thawed", kind)', "kind"),
            ("not _of_head(head, path, x)", "not _of_head(head, path[1:], x)"),
            ('"use_running_average": True, ', ""),
            ("jax.lax.stop_gradient(x)", "x"),
        ],
        ("_agreement.py", ODD): [(" - excused", "")],
        ("_agreement.py", REFUSED): [
            ("- ignored(file.tensors, ignore) - excused", "- set(file.tensors)"),
            ("not np.isfinite(x).all()", "False"),
            ("(x < 0).any()", "False"),
        ],
        ("_vit.py", TOLD): [("(1152, 4304): 16", "(1152, 4304): 18")],
        ("_agreement.py", TOLD): [
            (
                "**said, **read_fields(file.path, own, METADATA)",
                "**read_fields(file.path, own, METADATA), **said",
            ),
            ("        if told != ours[name]", "        if False"),
            ("kind_of(value) if name", "ours[name] if name"),
            ('"depths", "hidden_sizes", "block"', '"hidden_sizes", "block"'),
            ('n != "classes" and', ""),
        ],
        ("_names.py", REFUSED): [("return matching | ", "return ")],
        ("_names.py", GOLDENS): [('"query", "key", "value"', '"key", "query", "value"')],
        ("_names.py", ODD): [
            ('"mlp.linear_2."', '"mlp.linear_3."'),
            ("if len(found) == 1", "if found"),
        ],
        ("_vit.py", ODD): [('"cubic", antialias', '"linear", antialias')],
        ("_saving.py", PRETRAINED): [("        metadata |= {", "        _ = {")],
        ("_checkpoint.py", FILES): [
            ("digest != str(sha256).lower()", "digest != sha256"),
            ("    if sha256 is not None:\n        _check_digest(path, sha256)\n", ""),
        ],
        ("_facts.py", FACTS): [
            ('facts.pop("resize", None)', "pass"),
            ("implied(facts) | facts", "facts"),
        ],
        ("_configurations.py", FACTS): [
            ("math.floor(", "round("),
            ("whole > crop", "True"),
            ("cropped and crop is None", "False"),
        ],
        ("_hub.py", HUB): [
            ("if download and (unknown or", "if download and (False or"),
            ("        _check_network(address)\n", ""),
            ('endpoint.rstrip("/")', "endpoint"),
            ('{"", ".", ".."}', '{"", "."}'),
            ("TELEMETRY = True", "TELEMETRY = False"),
        ],
    },
)
