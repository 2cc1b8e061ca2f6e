"""Docstrings as they are read in Python, turned into the Markdown that the site is made of.

Three spellings differ: `` `text <address>`_ `` is a link, `::` opens a block of code, and an
example stands alone under `Example:` or, in a module, in the text itself.
"""

import re

import griffe

LINK = re.compile(r"`([^`<]+?)\s*<(https?://[^>`]+)>`_")
PROMPT = re.compile(r"(?:^>>> .*\n(?:(?!\n)^.+\n?)*)+", re.MULTILINE)


class Markdown(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj, **_):
        """Rewrite the docstring of one object."""
        if obj.is_alias or obj.docstring is None:
            return
        obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text):
    """Return a docstring in Markdown."""
    text = LINK.sub(_link, text)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    return PROMPT.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)


def _link(match):
    return f"[{' '.join(match[1].split())}]({match[2]})"
