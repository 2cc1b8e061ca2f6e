"""Every page: its code runs, its links resolve, its figures are those of the records."""

import importlib.util
import inspect
import re

import pytest

import optax_dtnh
from benchmarks.harness import pages as generated
from optax_dtnh import models, regularizers
from tests.pages.pages import ROOT, blocks, broken_links, execute, pages

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def hook(name):
    """One of the files that the site is built with."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/hooks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs_elsewhere(page):
    """Whether another test takes the page's program from it, to do more than run it."""
    others = [path for path in ROOT.glob("tests/**/test_*.py") if path.name != "test_docs.py"]
    texts = [path.read_text() for path in others]
    return any(f'"{page}"' in text and '"python")' in text for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages())
def test_every_block_of_python_on_the_page_runs(page, tmp_path, monkeypatch):
    if not runs_elsewhere(page):
        monkeypatch.chdir(tmp_path)
        execute("\n".join(blocks(page, "python")), page)


def test_no_block_hides_from_the_tests():
    """Indented, or under another name of the language, `blocks` would not find it."""
    for page in pages():
        text = (ROOT / page).read_text()
        opened = re.findall(r"^[ \t>]*(?:`{3,}|~{3,})[ \t]*(py\w*|\{.*)", text, re.MULTILINE)
        assert len(opened) == len(blocks(page, "python")), page


@pytest.mark.parametrize("page", pages())
def test_every_link_and_anchor_of_the_page_resolves(page):
    assert broken_links(page, (ROOT / page).read_text()) == []


def test_links_that_lead_nowhere_are_found():
    text = "[a](forms.md) [b](form.md) [c](#he) [d](#h) [e](forms.md#no) `[f](x)`\n\n[g]: y.md\n# H"
    assert broken_links("docs/page.md", text) == ["form.md", "#he", "forms.md#no", "y.md"]


def test_the_page_of_the_benchmarks_names_every_question_and_every_record():
    text = (ROOT / "benchmarks/README.md").read_text()
    rules = (ROOT / "Makefile").read_text()
    targets = re.findall(r"`make (\w+)`", text)
    commands = text + "".join(re.findall(rf"^{t}:.*\n(?:\t.*\n)+", rules, re.M)[0] for t in targets)
    for main in ROOT.glob("benchmarks/**/__main__.py"):
        module = main.parent.relative_to(ROOT).as_posix().replace("/", ".")
        assert re.search(rf"-m {module}(?![.\w])", commands), module
    for record in ROOT.glob("benchmarks/results/*"):
        stem = record.name.removesuffix(record.suffix)
        assert f"(results/{record.name})" in text or f"(results/{stem}.md)" in text, record.name


def test_the_navigation_names_pages_that_exist_each_once():
    """The site adds what it does not name to the guide, so that nothing is left out."""
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    listed = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    assert len(listed) == len(set(listed)) > 15
    assert set(listed) <= set(pages())


def public():
    names = {f"optax_dtnh.{name}" for name in optax_dtnh.__all__ if name != "regularizers"}
    names |= {f"optax_dtnh.regularizers.{name}" for name in regularizers.__all__}
    return names | {f"optax_dtnh.models.{name}" for name in models.__all__}


def test_the_api_pages_show_every_public_name_once():
    text = "".join(path.read_text() for path in ROOT.glob("docs/api*.md"))
    assert sorted(re.findall(r"^::: (\S+)$", text, re.MULTILINE)) == sorted(public())


def test_docstrings_of_public_names_are_markdown():
    """The site shows them as they are written."""
    for package in (optax_dtnh, regularizers, models):
        for name in package.__all__:
            text = inspect.getdoc(getattr(package, name)) or ""
            rst = re.findall(r">`_|::$|^Example:", text, re.MULTILINE)
            assert inspect.ismodule(getattr(package, name)) or not rst, name


def test_a_site_that_loads_something_or_shows_markup_is_refused(tmp_path):
    faults = hook("offline").faults
    page = tmp_path / "page.html"
    loads = '<script src="https://x.org/a.js">', "<img src=//x.org/a.png>"
    for bad in (*loads, "<p>&gt;&gt;&gt; 1</p>", "<p>these:\n- one</p>"):
        page.write_text(f"<p><a href='https://x.org'>fine</a></p>{bad}")
        assert len(faults(page)) == 1, bad
    page.write_text("<a href='https://x.org'>a</a> <img src='a.png'> <link href='a.css'>")
    assert faults(page) == ["page.html lacks a.css", "page.html lacks a.png"]
    style = tmp_path / "a.css"
    style.write_text("@import url(https://fonts.x.org/a); a { background: url(a.png) }")
    assert len(faults(style)) == 1


def test_every_record_has_a_page_that_says_where_it_is_from():
    results = hook("results")
    names = results.names(ROOT)
    assert {"cost.many_devices.tpu", "digits", "guarantee", "tried"} <= set(names)
    for name in names:
        shown = results.markdown(ROOT, name)
        rows = dict(re.findall(r"^\| ([\w ]+) \| (\S.*) \|$", shown, re.MULTILINE))
        assert {"machine", "versions", "every number"} <= set(rows), name
        script, _ = results.script_of(ROOT, name)
        assert script is None or rows["command"].startswith("`python -m benchmarks"), name


def written():
    return {page: page.read_text() for page in generated.pages(ROOT)}


def test_filling_the_pages_from_the_records_changes_nothing():
    stale = [page.name for page, text in written().items() if generated.filled(text) != text]
    assert not stale, f"run `make pages`: {stale}"


def test_every_place_is_closed_and_no_figure_begins_a_line():
    """Markdown would show the rest of a line that begins with a comment as it is written."""
    places = 0
    for page, text in written().items():
        opened = re.findall(r"<!--[\w.]+:\w+-->", text)
        assert len(opened) == len(generated.MARKED.findall(text)) == text.count("<!--/-->"), page
        assert not re.findall(r"^[\s>*-]*<!--.+-->.+$", text, re.MULTILINE), page
        places += len(opened)
    assert places > 30


def test_a_wrong_figure_is_put_right():
    wrong = "of <!--digits:seeds-->2<!--/--> seeds"
    assert generated.filled(wrong) == "of <!--digits:seeds-->20<!--/--> seeds"


@pytest.mark.parametrize("marker", ["digits:none", "none:table", "cost.none:table"])
def test_a_place_without_a_function_or_a_record_is_an_error(marker):
    with pytest.raises(ValueError, match=f"`<!--{marker}-->` should name a function of"):
        generated.filled(f"<!--{marker}--><!--/-->")
