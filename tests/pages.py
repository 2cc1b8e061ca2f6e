"""The code in the README and in the docs, taken from the page itself."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(page, language):
    """The code blocks of a language on a page, in order."""
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def side(diff, sign):
    """The program before (`-`) or after (`+`) a diff."""
    return "\n".join(line[1:] for line in diff.splitlines() if line[:1] in (" ", sign, ""))


def execute(program, page, names=None):
    """Run a block and return the names it defines, on top of `names`."""
    namespace = dict(names or {})
    exec(compile(program, str(page), "exec"), namespace)
    return namespace
