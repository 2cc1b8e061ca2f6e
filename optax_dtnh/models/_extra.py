"""What the extra `models` brings: without it, one error that says so, before any other import."""

from importlib.util import find_spec

for _name in ("flax", "safetensors"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(
            f"`{_name}` should be installed for `optax_dtnh.models`, got none. Install the extra: "
            "`pip install 'optax-dtnh[models]'`.",
            name=_name,
        )
