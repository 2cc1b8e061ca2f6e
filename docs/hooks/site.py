"""The site has the repository's layout, so that every link is right in both.

mkdocs takes pages from one folder, and a link out of it would be dead. Here every page and every
file that a page links to keeps its path in the repository instead: `README.md` is the home page,
`docs/forms.md` is `docs/forms.html`, and `../benchmarks/results/digits.json` resolves as on disk.
A linked source file becomes a page that shows it. No text exists twice.
"""

import os
import re
from pathlib import Path
from posixpath import join, normpath

import results
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CHANGELOG.md", "benchmarks/README.md")
LINK = re.compile(r"(\]\(|^\[[^\]]+\]: )(?!https?:|#|mailto:)([^)#\s]+)", re.MULTILINE)
CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
CODE_OR_LINK = re.compile(f"({CODE.pattern})|{LINK.pattern}", CODE.flags)


def on_config(config):
    """Add to the navigation every record of a benchmark, and to the guide a page that it lacks."""
    section(config, "Benchmarks").extend({n: results.page(n)} for n in results.names(ROOT))
    listed = re.findall(r"[\w./]+\.md", str(config.nav))
    section(config, "Guide").extend(path for path in pages() if path not in listed)
    return config


def on_files(files, config):
    """Replace the files of the `docs` folder by those of the repository, at their own paths."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for name in results.names(ROOT):
        content = results.markdown(ROOT, name)
        files.append(File.generated(config, results.page(name), content=content))
    extra = [*config.extra_css, *map(str, config.extra_javascript)]
    for path in [*pages(), *(path for path in extra if (ROOT / path).is_file())]:
        append(files, path, config)
    for file in list(files.documentation_pages()):
        for target in linked(file.content_string, file.src_uri):
            if not files.get_file_from_path(shown(target)) and (ROOT / target).is_file():
                append(files, target, config)
    return files


def on_page_markdown(markdown, **_):
    """Point links to source files at the pages that show them."""
    return CODE_OR_LINK.sub(lambda m: m[1] or m[2] + shown(m[3]), markdown)


def section(config, title):
    """Return the pages of a section of the navigation."""
    return next(item[title] for item in config.nav if title in item)


def pages():
    """Return the pages that are written by hand, as paths in the repository."""
    return [*PAGES, *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))]


def linked(text, page):
    """Return the files of the repository that a page links to, as paths in the repository."""
    found = LINK.findall(CODE.sub("", text))
    return sorted({normpath(join(os.path.dirname(page), target)) for _, target in found})


def shown(path):
    """Return where the site shows a file: a page of its own for a source file."""
    return f"{path}.md" if path.endswith(".py") else path


def append(files, path, config):
    """Add a file of the repository to the site, source code as a page that shows it."""
    if path.endswith(".py"):
        content = f"# {path}\n\n```python\n{(ROOT / path).read_text(encoding='utf-8')}```\n"
        files.append(File.generated(config, shown(path), content=content))
    else:
        files.append(File(path, ROOT.as_posix(), config.site_dir, config.use_directory_urls))
