"""Files made once from optional packages; from then on they are enough, without package or network.

They stay in `.cache/real/` of the checkout, which git ignores.
"""

from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".cache" / "real"


def cached(name: str, write: Callable[[Path], None]) -> Path:
    """Return the file `name` of the cache, which `write` makes if it is not there.

    Raises:
      ModuleNotFoundError: The file is not there, nor the package that it is made from.
    """
    path = FOLDER / name
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{name}")
        try:
            write(unfinished)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"`{error.name}` is not installed, so {path} cannot be made. Run "
                f"`pip install '.[real]'` in the checkout, or copy {name} there.",
                name=error.name,
            ) from error
        unfinished.replace(path)
    return path
