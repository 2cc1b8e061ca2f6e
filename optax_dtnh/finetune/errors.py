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
    """Turn exceptions of the given kinds into a `UsageError`.

    Put it around the call of a library that checks what the user gave, and around nothing more. The
    library's arguments become the options of the command that have their names.
    """
    try:
        yield
    except kinds as error:
        raise UsageError(ARGUMENT.sub(_option, str(error))) from error


def _option(argument: re.Match[str]) -> str:
    return f"`--{argument[1].replace('_', '-')}`"


def listed(names: Sequence[str], shown: int = 5) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
