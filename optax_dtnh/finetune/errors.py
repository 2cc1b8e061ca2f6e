"""The exception for everything that the user of the command can mend."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

ARGUMENT = re.compile(r"`(source|download|heads|ignore|image_size)(?:=True)?`")


class UsageError(Exception):
    """A mistake in the arguments of the command, or in its surroundings.

    The command prints the text in one line and exits with code 2. Any other exception is a bug of
    ours and shows its traceback.
    """


@contextmanager
def usage_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn exceptions of these kinds into a `UsageError`, and their arguments into our options.

    Put it around the call of a library that checks what the user gave, and around nothing more.
    """
    try:
        yield
    except kinds as error:
        raise UsageError(ARGUMENT.sub(lambda name: f"`{flag(name[1])}`", str(error))) from error


@contextmanager
def named(argument: str, option: str = "--data") -> Iterator[None]:
    """Name this argument in a `UsageError` about what `train` calls by the option."""
    try:
        yield
    except UsageError as error:
        raise UsageError(str(error).replace(f"`{option}`", f"`{argument}`")) from error


def flag(name: str) -> str:
    """Return the option of a setting."""
    return f"--{name.replace('_', '-')}"


def listed(names: Sequence[str], shown: int = 5) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
