"""The schemes of names, by library: torchvision, transformers (HF), timm and the Lite0 package."""

from optax_dtnh.models._names import SCHEMES

TV_RESNET, HF_RESNET, TIMM_VIT, TV_VIT, HF_VIT, LITE0, OLDER_TV_VIT = SCHEMES
