"""Docstrings as they are read in Python, turned into the Markdown that the site is made of.

Three spellings differ: `` `text <address>`_ `` is a link, `::` opens a block of code, and an
example stands under `Example:` or, in a module, in the text itself.
"""

import re

LINK = re.compile(r"`([^`<]+?)\s*<(https?://[^>`]+)>`_")
PROMPT = re.compile(r"(?:^>>> .*\n(?:(?!\n)^.+\n?)*)+", re.MULTILINE)


def as_markdown(text):
    """Return a docstring in Markdown."""
    text = LINK.sub(_link, text)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    return PROMPT.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)


def _link(match):
    return f"[{' '.join(match[1].split())}]({match[2]})"
