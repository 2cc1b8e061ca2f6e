"""Every page: its code runs, its links resolve, its figures are those of the records."""

import re

import pytest

import optax_dtnh
from benchmarks.harness import pages as generated
from optax_dtnh import models, regularizers
from tests.pages.pages import ROOT, blocks, broken_links, execute, pages

pytestmark = pytest.mark.usefixtures("quickly_compiled")


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


def public():
    names = {f"optax_dtnh.{name}" for name in optax_dtnh.__all__ if name != "regularizers"}
    names |= {f"optax_dtnh.regularizers.{name}" for name in regularizers.__all__}
    return names | {f"optax_dtnh.models.{name}" for name in models.__all__}


def test_the_api_pages_show_every_public_name_once():
    text = "".join(path.read_text() for path in ROOT.glob("docs/api*.md"))
    assert sorted(re.findall(r"^::: (\S+)$", text, re.MULTILINE)) == sorted(public())


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
