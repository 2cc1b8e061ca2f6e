"""A benchmark on a really pretrained network: EfficientNet-Lite0 and photographs of solar cells."""
