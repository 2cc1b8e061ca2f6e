"""Torch with operators that torchvision wants, before anything imports it or transformers."""

from benchmarks.parity.torch_models import declare_operators, package

declare_operators()
package("transformers")  # without its progress bars
