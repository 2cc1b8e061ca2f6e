"""Every page: its code runs, its links resolve, and no page or public name is left out."""

import importlib.util
import inspect
import re

import pytest

import optax_dtnh
from optax_dtnh import models, regularizers
from tests.pages.pages import ROOT, blocks, broken_links, execute, links, pages

pytestmark = pytest.mark.usefixtures("quickly_compiled")

# What the tests of the page itself run, in more ways than one; they fail if a block goes missing.
RUN_ELSEWHERE = {
    "README.md": "test_readme",
    "docs/accumulation.md": "test_micro_batches",
    "docs/forms.md": "test_first_order",
    "docs/mixed_precision.md": "test_mixed_precision",
    "docs/models.md": "test_models_page",
    "docs/regularizers.md": "test_regularizers",
    "docs/training_loops.md": "test_training_loops",
    "docs/wrappers.md": "test_optax_wrappers",
}


def hook(name):
    """One of the files that the site is built with."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/hooks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the code


@pytest.mark.parametrize("page", pages())
def test_every_block_of_python_on_the_page_runs(page, tmp_path, monkeypatch):
    if page in RUN_ELSEWHERE:
        test = (ROOT / f"tests/{RUN_ELSEWHERE[page]}.py").read_text()
        assert page in test
        assert re.search(r"blocks\((PAGE|\"README.md\"), \"python\"\)", test)
        return
    monkeypatch.chdir(tmp_path)
    execute("\n".join(blocks(page, "python")), page)


def test_no_block_hides_from_the_tests():
    """Indented, or under another name of the language, `blocks` would not find it."""
    for page in pages():
        text = (ROOT / page).read_text()
        opened = re.findall(r"^[ \t>]*(?:`{3,}|~{3,})[ \t]*(py\w*|\{.*)", text, re.MULTILINE)
        assert len(opened) == len(blocks(page, "python")), page


# --- the links


@pytest.mark.parametrize("page", pages())
def test_every_link_and_anchor_of_the_page_resolves(page):
    assert broken_links(page, (ROOT / page).read_text()) == []


def test_links_that_lead_nowhere_are_found():
    text = (
        "[a](forms.md) [b](form.md) [c](#here) [d](forms.md#nowhere) `[e](x)`\n\n[f]: y.md\n# Her"
    )
    assert broken_links("docs/page.md", text) == ["form.md", "#here", "forms.md#nowhere", "y.md"]
    assert broken_links("docs/page.md", text + "e") == ["form.md", "forms.md#nowhere", "y.md"]
    assert broken_links("page.md", "[a](../main/README.md)") == ["../main/README.md"]
    assert len(links((ROOT / "docs/wrappers.md").read_text())) > 10


# --- the site


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


def test_docstrings_become_markdown():
    as_markdown = hook("rst").as_markdown
    text = "Of::\n\n    a = b\n\nSource: `A\nB <https://x.org/1>`_, 2.\n\nExample:\n  >>> 1\n"
    expected = text.replace("::", ":").replace("Example", "Examples")
    assert as_markdown(text) == expected.replace(
        "`A\nB <https://x.org/1>`_", "[A B](https://x.org/1)"
    )
    assert as_markdown("Text:\n\n>>> 1\n1\n\nMore") == "Text:\n\n```pycon\n>>> 1\n1\n```\n\nMore"
    shown = [as_markdown(inspect.getdoc(value) or "") for value in vars(optax_dtnh).values()]
    assert not [text for text in shown if ">`_" in text]


def test_a_site_that_loads_something_or_shows_markup_is_refused(tmp_path):
    faults = hook("offline").faults
    page = tmp_path / "page.html"
    for bad in (
        '<script src="https://x.org/a.js">',
        "<img src=//x.org/a.png>",
        "<p>&gt;&gt;&gt; 1</p>",
        "<p>these:\n- one</p>",
    ):
        page.write_text(f"<p><a href='https://x.org'>fine</a></p>{bad}")
        assert len(faults(page)) == 1, bad
    page.write_text("<a href='https://x.org'>a</a> <img src='a.png'> <link href='a.css'>")
    assert faults(page) == ["page.html lacks a.css", "page.html lacks a.png"]
    (tmp_path / "a.css").touch()
    (tmp_path / "a.png").touch()
    assert faults(page) == []
    style = tmp_path / "a.css"
    style.write_text("@import url(https://fonts.x.org/a); a { background: url(a.png) }")
    assert len(faults(style)) == 1


# --- the pages of the records


def test_every_record_has_a_page_with_its_command_script_machine_versions_and_json():
    results = hook("results")
    names = results.names(ROOT)
    assert {"digits", "guarantee", "step_cost", "variants"} <= set(names)
    for name in names:
        shown = results.markdown(ROOT, name)
        assert shown.startswith("# "), name
        rows = dict(
            re.findall(r"^\| ([\w ]+) \| (\S.*) \|$", shown.split("\n## ")[0], re.MULTILINE)
        )
        assert {"command", "script", "machine", "versions", "every number"} <= set(rows), name
        assert rows["command"].startswith(("`python -m benchmarks", "`make ")), name
        assert rows["every number"] == f"[{name}.json]({name}.json)"


def test_the_page_of_a_record_says_what_the_record_says(tmp_path):
    results = hook("results")
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    (tmp_path / "benchmarks/a.py").write_text('"""Is it?\n\n    make a  # or so\n\nYes.\n"""')
    (tmp_path / "benchmarks/results/a.json").write_text(
        '{"environment": {"jax": "9", "device": "abacus", "cpu_count": 3, "commit": "12ab",'
        ' "dirty": true}, "runs": [{"seed": 4}, {"seed": 2}]}'
    )
    page = results.markdown(tmp_path, "a")
    for row in ("command | `make a`", "machine | device abacus, 3 cores", "drawn | seeds 2 to 4"):
        assert f"| {row} |" in page
    assert "| commit | `12ab`, with changes |" in page
    tables = '{"tables": [{"title": "of it", "rows": [{"n": 1, "x": 0.123456}, {"n": null}]}]}'
    (tmp_path / "benchmarks/results/a.json").write_text(tables)
    expected = "## Of it\n\n| n | x |\n| --- | --- |\n| 1 | 0.1235 |\n| – | – |"
    assert expected in results.markdown(tmp_path, "a")
    assert page.startswith("# Is it?\n")
