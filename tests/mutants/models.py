"""Faults in the reference models, and in what loads and saves them."""

from tests.mutants import listed

MUTANTS = listed(
    "optax_dtnh/models",
    "tests/models",
    {
        ("_layers.py", "model_goldens"): [
            ('"padding": size // 2', '"padding": "SAME"'),
            ("features: int, epsilon: float = 1e-5", "features: int, epsilon: float = 1e-3"),
        ],
        ("_layers.py", "models"): [
            ('"momentum": 0.9', '"momentum": 0.99'),
            ("(n / (n - 1))", "1"),
            ('"use_fast_variance": False', '"use_fast_variance": True'),
            ("super().__call__(x).astype(x.dtype)\n        n", "super().__call__(x)\n        n"),
        ],
        ("_resnet.py", "model_goldens"): [
            ("edges[axis] = (1, 1, 0)", "edges[axis] = (0, 2, 0)"),
            ("y = nnx.relu(self.norm2(self.conv2(y)))", "y = self.norm2(self.conv2(y))"),
            ("2 if i and not j else 1", "1 if i and not j else 1"),
        ],
        ("_vit.py", "model_goldens"): [("approximate=False", "approximate=True")],
        ("_vit.py", "models"): [("epsilon: float = 1e-6", "epsilon: float = 1e-5")],
        ("_names.py", "pretrained"): [
            ("epsilon: float = 1e-6", "epsilon: float = 1e-5"),
            ('"layer.{i0}.normalization."', '"layer.{i}.normalization."'),
            ('"attn.proj.", "self_attention', '"attn.out.", "self_attention'),
            ("POOLER, 1e-12", "POOLER, 1e-6"),
            ("transpose(*range(2, array.ndim), 1, 0)", "transpose(*range(2, array.ndim), 0, 1)"),
        ],
        ("_transfer.py", "model_transfer"): [
            ("nnx.clone(model, arrays=True), lambda", "nnx.clone(model), lambda"),
            ('getattr(kind, "thawed", kind)', "kind"),
            ("not _of_head(head, path, x)", "not _of_head(head, path[1:], x)"),
            ('"use_running_average": True, ', ""),
            ("jax.lax.stop_gradient(x)", "x"),
        ],
        ("_agreement.py", "odd_checkpoints"): [(" - excused", "")],
        ("_agreement.py", "refused_checkpoints"): [
            ("- ignored(tensors, ignore) - excused", "- set(tensors)"),
            ("not np.isfinite(x).all()", "False"),
            ("(x < 0).any()", "False"),
        ],
        ("_vit.py", "told_facts"): [("(1152, 4304): 16", "(1152, 4304): 18")],
        ("_agreement.py", "told_facts"): [
            ("METADATA)}", "METADATA), **said}"),
            ("        if told != ours[name]", "        if False"),
            ("kind_of(value) if name", "ours[name] if name"),
            ('"depths", "hidden_sizes", "block"', '"hidden_sizes", "block"'),
            ('n != "classes" and', ""),
        ],
        ("_names.py", "refused_checkpoints"): [("return matching | ", "return ")],
        ("_names.py", "model_goldens"): [('"query", "key", "value"', '"key", "query", "value"')],
        ("_names.py", "odd_checkpoints"): [
            ('"mlp.linear_2."', '"mlp.linear_3."'),
            ("if len(found) == 1", "if found"),
        ],
        ("_vit.py", "odd_checkpoints"): [('"cubic", antialias', '"linear", antialias')],
        ("_saving.py", "pretrained"): [("        metadata |= {", "        _ = {")],
        ("_checkpoint.py", "checkpoint_files"): [
            ("digest != str(sha256).lower()", "digest != sha256"),
            ("    if sha256 is not None:\n        _check_digest(path, sha256)\n", ""),
        ],
        ("_facts.py", "facts"): [
            ('facts.pop("resize", None)', "pass"),
            ("implied(facts) | facts", "facts"),
            ("math.floor(", "round("),
            ("whole > crop", "True"),
            ("cropped and crop is None", "False"),
        ],
        ("_hub.py", "hub"): [
            ("if download and (unknown or", "if download and (False or"),
            ("        _check_network(address)\n", ""),
            ('endpoint.rstrip("/")', "endpoint"),
            ('{"", ".", ".."}', '{"", "."}'),
            ("TELEMETRY = True", "TELEMETRY = False"),
        ],
    },
)
