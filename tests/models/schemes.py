"""The schemes of names, by library: torchvision, transformers (HF) and timm."""

from optax_dtnh.models._names import SCHEMES

TV_RESNET, HF_RESNET, TIMM_VIT, TV_VIT, HF_VIT, OLDER_TV_VIT = SCHEMES
