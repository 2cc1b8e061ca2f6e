"""What the extra `models` brings: without it, one error that says so, before any other import."""

from importlib.util import find_spec

for _name in ("flax", "safetensors", "huggingface_hub"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(
            f"`{_name}` is not installed, but `optax_dtnh.models` needs it. Run "
            "`pip install 'optax-dtnh[models]'`.",
            name=_name,
        )
