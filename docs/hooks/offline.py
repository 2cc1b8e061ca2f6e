"""Refuse a site that loads anything from elsewhere, or that shows markup instead of its meaning."""

import re
from pathlib import Path

LOADED = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//\S+"
)
STYLE = re.compile(r"(?:@import\s+|url\()[\"']?(?:https?:)?//[^)\"';]+")
UNRENDERED = {
    "an RST link": re.compile(r"&gt;`_|&gt;</code>_"),
    "a table": re.compile(r"<p>\|[^<]*\|---"),
    "a list": re.compile(r"<p>(?:(?!</p>).)*\n[-*] ", re.DOTALL),
    "a fence": re.compile(r"<p>```"),
    "a prompt outside of code": re.compile(r"<p>&gt;&gt;&gt;|<blockquote>\s*<blockquote>"),
    "an unresolved reference": re.compile(r"<p>[^<]*\]\[[\w.]+\]"),
}


def on_post_build(config):
    """Read what was built."""
    from mkdocs.exceptions import PluginError  # here, so that the tests can read `faults`

    found = [line for path in sorted(Path(config.site_dir).rglob("*")) for line in faults(path)]
    if found:
        raise PluginError("\n".join(found))


def faults(path):
    """Return what is wrong with a file, one line each."""
    if path.suffix == ".css":
        return [f"{path.name} loads {match[0]}" for match in STYLE.finditer(path.read_text())]
    if path.suffix != ".html":
        return []
    text = path.read_text()
    loaded = [f"{path.name} loads {match[0]}" for match in LOADED.finditer(text)]
    return loaded + [
        f"{path.name} shows {name}" for name, r in UNRENDERED.items() if r.search(text)
    ]
