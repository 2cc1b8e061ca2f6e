"""The code and the links in the README and in the docs, taken from the page itself."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath

ROOT = Path(__file__).parents[2]


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


def pages():
    """Every page that is written by hand, as a path in the repository."""
    docs = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
    return ["README.md", "CHANGELOG.md", "benchmarks/README.md", *docs]


def prose(text):
    """A page without its blocks of code and what is spelled in code letters."""
    return re.sub(r"(`+)[^`\n](.*?)\1", "code", prose_with_code(text))


def links(text):
    """The targets of all links of a page but those to other sites, references included."""
    found = re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)", prose(text), re.MULTILINE)
    return [x or y for x, y in found if not re.match(r"https?:|mailto:", x or y)]


def anchors(text):
    """The addresses of a page's headings, as the repository's view and the site form them."""
    headings = re.findall(r"^#+ (.*)$", prose_with_code(text), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return [re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain]


def prose_with_code(text):
    """A page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)


def broken_links(page, text):
    """The links of a page whose file, or whose heading in it, does not exist."""
    return [target for target in links(text) if not _resolves(page, text, target)]


def _resolves(page, text, target):
    path, _, anchor = target.partition("#")
    inside = normpath(join(dirname(page), path))
    there = ROOT / inside
    if path and (inside.startswith("..") or not there.exists()):
        return False
    return not anchor or anchor in anchors(there.read_text() if path else text)
