"""What the page of the forms says of the digits is what the record says."""

import re

from tests.pages.pages import ROOT

PAGE = (ROOT / "docs/forms.md").read_text()
TABLES = (ROOT / "benchmarks/results/digits.variants.md").read_text()
COLUMNS = [
    (regularizer, setting)
    for regularizer in ("L2-SP", "KnowDist")
    for setting in ("SGD batch 16", "SGD full batch", "Adam batch 16", "Adam full batch")
]


def rows(text):
    return [[cell.strip() for cell in line.strip("| \n").split("|")] for line in text.splitlines()]


def gains():
    """From form, regularizer and setting to the difference to the plain regularizer."""
    table = TABLES.split("## Every form by setting")[1]
    return {(c[2], c[1], c[0]): c[3] for c in rows(table) if len(c) == 11}


def test_the_table_of_the_page_is_that_of_the_record():
    table = PAGE.split("## What the digits say")[1]
    shown = [c for c in rows(table) if len(c) == 9 and c[0] not in ("form", "---")]
    assert len(shown) == 10
    for form, *cells in shown:
        expected = [gains().get((form, *column), "–") for column in COLUMNS]
        assert cells == expected, form


def test_the_figures_in_words_are_those_of_the_record():
    hurt = re.search(r"In (\d+ of \d+) cells every form", TABLES)[1]
    assert f"In {hurt} cells every form hurts" in PAGE
    diverged = sum(
        int(re.search(r"\((\d+) diverged\)", c[8])[1])
        for c in rows(TABLES)
        if len(c) == 11 and c[1:3] == ["L2-SP", "metric"]
    )
    cells = sum(int(c[7].split(" of ")[1]) for c in rows(TABLES) if c[1:3] == ["L2-SP", "metric"])
    assert re.search(rf"{diverged} of\s+{cells} cells", PAGE)
    readme = (ROOT / "README.md").read_text()
    for form in ("DTNH", "EMA 0.99"):
        assert gains()[form, "L2-SP", "SGD batch 16"].lstrip("+") in readme
    decided = (ROOT / "benchmarks/results/digits.gate.md").read_text()
    new_source = decided.split("## New seeds, new source")[1].split("## ")[0]
    assert "| given | cross-validation, Brier score | 5.0 | 0.2 |" in new_source
    assert "18.2 ± 4.7" in decided
    assert "up to 18 points" in PAGE
