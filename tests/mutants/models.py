"""Faults in the reference models, and in what loads and saves them."""

from tests.mutants import listed

MUTANTS = listed(
    "optax_dtnh/models",
    "tests/models",
    {
        ("_layers.py", "model_goldens"): [('"padding": size // 2', '"padding": "SAME"')],
        ("_layers.py", "models"): [('"momentum": 0.9', '"momentum": 0.99')],
        ("_resnet.py", "model_goldens"): [("(a >= b) | (a != a)", "a > b")],
        ("_vit.py", "model_goldens"): [("approximate=False", "approximate=True")],
        ("_names.py", "pretrained"): [
            ('"layer.{i0}.normalization."', '"layer.{i}.normalization."'),
            ("transpose(*range(2, array.ndim), 1, 0)", "transpose(*range(2, array.ndim), 0, 1)"),
        ],
        ("_transfer.py", "model_transfer"): [
            ("nnx.clone(model, arrays=True), lambda", "nnx.clone(model), lambda"),
            ('getattr(kind, "thawed", kind)', "kind"),
            ("jax.lax.stop_gradient(x)", "x"),
        ],
        ("_agreement.py", "odd_checkpoints"): [(" - excused", "")],
        ("_agreement.py", "refused_checkpoints"): [("(x < 0).any()", "False")],
        ("_vit.py", "told_facts"): [("(1152, 4304): 16", "(1152, 4304): 18")],
        ("_agreement.py", "told_facts"): [
            ("METADATA)}", "METADATA), **said}"),
            ('"depths", "hidden_sizes", "block"', '"hidden_sizes", "block"'),
        ],
        ("_names.py", "refused_checkpoints"): [("return matching | ", "return ")],
        ("_names.py", "model_goldens"): [('"query", "key", "value"', '"key", "query", "value"')],
        ("_names.py", "odd_checkpoints"): [("if len(found) == 1", "if found")],
        ("_vit.py", "odd_checkpoints"): [('"cubic", antialias', '"linear", antialias')],
        ("_saving.py", "pretrained"): [("        metadata |= {", "        _ = {")],
        ("_checkpoint.py", "checkpoint_files"): [
            ("digest != str(sha256).lower()", "digest != sha256"),
            ("    if sha256 is not None:\n        _check_digest(path, sha256)\n", ""),
        ],
        ("_facts.py", "facts"): [
            ('facts.pop("resize", None)', "pass"),
            ("implied(facts) | facts", "facts"),
        ],
        ("_hub.py", "hub"): [
            ("if download and (unknown or", "if download and (False or"),
            ("        _check_network(address)\n", ""),
        ],
    },
)
