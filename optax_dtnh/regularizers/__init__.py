"""Regularizers of transfer learning: plain functions from trees to a float32 scalar.

`w` are the parameters, `w_s` the pretrained ones; `f` the feature maps of the network being
trained, `f_s` those of the pretrained one on the same batch, channels last.
"""

from optax_dtnh.regularizers._attention import attention_feature_distance, channel_attention
from optax_dtnh.regularizers._chunks import chunked_mean
from optax_dtnh.regularizers._distances import feature_distance, l2_sp
from optax_dtnh.regularizers._fisher import diagonal_fisher
from optax_dtnh.regularizers._kl import distillation, forward_kl, non_target_logits, reverse_kl
from optax_dtnh.regularizers._lora import lora_l2_sp
from optax_dtnh.regularizers._spectral import batch_spectral_shrinkage

__all__ = [
    "attention_feature_distance", "batch_spectral_shrinkage", "channel_attention", "chunked_mean",
    "diagonal_fisher", "distillation", "feature_distance", "forward_kl", "l2_sp", "lora_l2_sp",
    "non_target_logits", "reverse_kl",
]  # fmt: skip

for _name in __all__:
    globals()[_name].__module__ = __name__  # the public path, in `help` and wherever it is printed
