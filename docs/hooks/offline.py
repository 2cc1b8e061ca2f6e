"""Refuse a site that loads what is elsewhere or nowhere, or that shows markup as it is written."""

import html
import re
from pathlib import Path

LOADED = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//\S+"
)
OWN = re.compile(r"<(?:script|link|img|source)\b[^>]*?\b(?:src|href)=[\"']?(?!/)([^\"' >]+)")
STYLE = re.compile(r"(?:@import\s+|url\()[\"']?(?:https?:)?//[^)\"';]+")
UNRENDERED = {
    "an RST link": re.compile(r"&gt;`_|&gt;</code>_"),
    "an RST block": re.compile(r"<p>[^<]*::</p>"),
    "an example without a section": re.compile(r"<p>Examples?:"),
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
        return [
            f"{path.name} loads {match[0]}"
            for match in STYLE.finditer(path.read_text(encoding="utf-8"))
        ]
    if path.suffix != ".html":
        return []
    text = path.read_text(encoding="utf-8")
    loaded = [f"{path.name} loads {match[0]}" for match in LOADED.finditer(text)]
    loaded += [f"{path.name} lacks {name}" for name in lacking(path, text)]
    return loaded + [
        f"{path.name} shows {name}" for name, r in UNRENDERED.items() if r.search(text)
    ]


def lacking(path, text):
    """Return what a page loads from the site and the site does not have, relative paths alone."""
    names = {html.unescape(name).split("#")[0].split("?")[0] for name in OWN.findall(text)}
    return sorted(n for n in names if n and ":" not in n and not (path.parent / n).exists())
