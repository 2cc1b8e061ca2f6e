"""What the pages quote is what the records say."""

import re

import pytest

from benchmarks.harness import pages
from tests.pages.pages import ROOT


def written():
    return {page: page.read_text() for page in pages.pages(ROOT)}


def test_filling_the_pages_from_the_records_changes_nothing():
    stale = [page.name for page, text in written().items() if pages.filled(text) != text]
    assert not stale, f"run `make pages`: {stale}"


def test_every_place_is_closed_and_no_figure_begins_a_line():
    """Markdown would show the rest of a line that begins with a comment as it is written."""
    places = 0
    for page, text in written().items():
        opened = re.findall(r"<!--[\w.]+:\w+-->", text)
        assert len(opened) == len(pages.MARKED.findall(text)) == text.count("<!--/-->"), page
        assert not re.findall(r"^[\s>*-]*<!--.+-->.+$", text, re.MULTILINE), page
        places += len(opened)
    assert places > 30


def test_a_wrong_figure_is_put_right():
    wrong = "of <!--digits:seeds-->2<!--/--> seeds"
    assert pages.filled(wrong) == "of <!--digits:seeds-->20<!--/--> seeds"


@pytest.mark.parametrize("marker", ["digits:none", "none:table", "cost.none:table"])
def test_a_place_without_a_function_or_a_record_is_an_error(marker):
    with pytest.raises(ValueError, match=f"`<!--{marker}-->` should name a function of"):
        pages.filled(f"<!--{marker}--><!--/-->")
