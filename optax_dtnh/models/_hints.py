"""What tensors with other names tell about a network that cannot be loaded, and what helps."""

import re
from collections.abc import Collection, Iterable

GENERAL = "Pass a checkpoint of this architecture"
IGNORE = "; name in `ignore` what may stay unused, many of them by a pattern as in `decoder.*`"
OTHER = "which no network here has. Take a checkpoint without it."
# From a pattern in the name of a tensor that is not expected, the first that matches.
HINTS = {
    r"(^|\.)lora_": "These are adapters beside their layers. Merge them into the weights, as with "
    "`model.merge_and_unload()`, and save again.",
    r"(qweight|weight_scale|\.SCB|absmax|_packed_params.*)$": "The weights are quantized. Save "
    "them in floating point.",
    r"(weight_[gv]|parametrizations\..*)$": "A layer's weight is computed from others. Remove "
    "the parametrization, and save again.",
    r"layers\.\d+\.attention\.[qkvo]_proj\.": "These are names in the memory of transformers. "
    "Write the file with `model.save_pretrained(folder)`.",
    r"(\.ls\d\.gamma|\.gamma_\d|lambda_?\d)$": f"It has layer scale, {OTHER}",
    r"(^|\.)(dist_token|distillation_token)$": f"It has a distillation token, {OTHER}",
    r"(^|\.)(reg_token|register_tokens)$": f"It has register tokens, {OTHER}",
    r"[qk]_norm\.": f"It has normalized queries and keys, {OTHER}",
    r"(^|\.)fc_norm\.": f"It has a head for the mean of the tokens, {OTHER}",
    r"(^|\.)(norm_pre|pre_layrnorm)\.": f"It has a normalization before the blocks, {OTHER}",
    r"\.se\.": f"It has squeeze and excitation, {OTHER}",
    r"(^|\.)conv1\.\d\.": f"It has a ResNet-D's stem of several convolutions, {OTHER}",
    r"\.(gamma|beta)$": "These are old names. Rename `gamma` to `weight` and `beta` to `bias`.",
}


def hint(names: Iterable[str]) -> str | None:
    """Return what these names of tensors tell, None if they tell nothing."""
    names = list(names)
    return next((h for p, h in HINTS.items() if any(re.search(p, name) for name in names)), None)


def what_to_do(unexpected: Collection[str]) -> str:
    """Return what helps with a file that has these tensors too many."""
    return hint(unexpected) or f"{GENERAL}{IGNORE if unexpected else ''}."
