"""The exception for everything that the user of the command can mend."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

ARGUMENT = re.compile(r"`(source|download)(?:=True)?`")


class UsageError(Exception):
    """A mistake in the arguments of the command, or in its surroundings.

    The command prints the text in one line and exits with code 2. Any other exception is a bug of
    ours and shows its traceback.
    """


@contextmanager
def usage_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn exceptions of the given kinds, ValueError and OSError by default, into a `UsageError`.

    Put it around the call of a library that checks what the user gave, and around nothing more. The
    library's arguments become the options of the command that have their names.
    """
    kinds = kinds or (ValueError, OSError)
    try:
        yield
    except kinds as error:
        raise UsageError(ARGUMENT.sub(r"`--\1`", str(error))) from error


def listed(names: Sequence[str], shown: int = 5) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
