"""The extension of the API pages: every docstring is rewritten before it is parsed."""

import sys
from pathlib import Path

import griffe

sys.path.insert(0, str(Path(__file__).parent))
from rst import as_markdown  # noqa: E402


class Markdown(griffe.Extension):
    """Rewrites docstrings."""

    def on_instance(self, *, obj, **_):
        """Rewrite the docstring of one object."""
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
