"""The tutorial: its page is its notebook, whose outputs are those of a whole run."""

import json

from tests.pages.pages import ROOT, blocks

CELLS = json.loads((ROOT / "docs/tutorial.ipynb").read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def test_the_page_is_the_notebook():
    page = (ROOT / "docs/tutorial.md").read_text()
    sources = ["".join(cell["source"]) for cell in CELLS]
    assert [source for source in sources if source not in page] == []
    python = ["".join(cell["source"]) for cell in CODE]
    python = [f"{source}\n" for source in python if not source.startswith("%%bash")]
    assert blocks("docs/tutorial.md", "python") == python


def test_every_cell_was_executed_in_order_and_none_failed():
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    texts = "".join("".join(output.get("text", [])) for output in outputs)
    assert "is taken" in texts
    assert "Test accuracy" in texts
