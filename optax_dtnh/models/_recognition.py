"""Which network a file holds, by the names of its tensors, and under which prefix."""

import fnmatch
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from optax_dtnh.models._checkpoint import Checkpoint
from optax_dtnh.models._errors import CheckpointError
from optax_dtnh.models._names import SCHEMES, Scheme, names_of


class Recognized(NamedTuple):
    """A naming scheme as a file has it."""

    scheme: Scheme
    prefix: str  # what stands before every name, such as `module.` or nothing
    stem: str  # the scheme's, or nothing where the file leaves it out

    def names_of(self, path: str) -> tuple[str, ...]:
        """Return the names in the file of the tensors that make up our leaf at the dotted path."""
        return tuple(map(self.in_file, names_of(self.scheme, path)))

    def in_file(self, name: str) -> str:
        """Return the name in the file of what the scheme calls `name`."""
        core = name.removeprefix(self.scheme.stem)
        return self.prefix + (name if core == name else self.stem + core)


def recognized(file: Checkpoint, ignore: Collection[str] = ()) -> Recognized:
    """Return the only network of the file, apart from the tensors in `ignore`."""
    names = sorted(set(file.tensors) - ignored(file.tensors, ignore))
    found = {name: at for scheme in SCHEMES for name, at in _places(scheme, names)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise CheckpointError(
            f"`source` should hold one network, got {file.path} with {len(found)}: "
            f"{listed(found)}. Save the tensors of one prefix alone, or name those of the others "
            "in `ignore`."
        )
    raise CheckpointError(
        f"`source` should be a checkpoint of a {', '.join(s.name for s in SCHEMES[:-1])}, got "
        f"{file.path} with {len(file.tensors)} tensors: {listed(file.tensors)}. Pass one "
        f"that has one of {listed(s.known_by for s in SCHEMES)}, or convert the names."
    )


def _places(scheme: Scheme, names: Collection[str]) -> Iterator[tuple[str, Recognized]]:
    core = scheme.known_by.removeprefix(scheme.stem)
    for name in names:
        if f".{name}".endswith(f".{core}"):
            before = name.removesuffix(core)
            stem = scheme.stem if f".{before}".endswith(f".{scheme.stem}") else ""
            yield name, Recognized(scheme, before.removesuffix(stem), stem)


def ignored(names: Collection[str], ignore: Collection[str]) -> set[str]:
    """Return those of the names that are in `ignore`, or match a pattern in it such as `a.*`."""
    patterns = [p for p in ignore if "*" in p]
    matching = {n for p in patterns for n in names if fnmatch.fnmatchcase(n, p)}
    return matching | (set(names) & set(ignore))


def listed(names: Iterable[str], most: int = 20) -> str:
    """Return the names, sorted, and how many more there are than `most`."""
    names = sorted(names)
    return ", ".join(names[:most] + [f"and {len(names) - most} more"] * (len(names) > most))
