"""Execute the tutorial's notebook: `make tutorial`, or `python docs/tutorial.py --quick` for CI.

It writes the notebook with its outputs, and the same as a page: `docs/tutorial.md`, with pictures
in `docs/tutorial/`. `--quick` takes few steps and writes nothing.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

DOCS = Path(__file__).resolve().parent
NOTEBOOK, PICTURES = DOCS / "tutorial.ipynb", DOCS / "tutorial"
STEPS, FEW = "--steps 150", "--steps 4 --methods l2_sp --weights 0.1 --folds 2"


def main() -> int:
    """Execute, and write unless it is a quick run."""
    parser = argparse.ArgumentParser(description="Execute the tutorial's notebook.")
    parser.add_argument("--quick", action="store_true", help="Few steps; write nothing.")
    quick = parser.parse_args().quick
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells if quick else ():
        cell.source = cell.source.replace(STEPS, FEW)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=3600, resources=resources).execute()
    if not quick:
        write(notebook)
    return 0


def write(notebook: nbformat.NotebookNode) -> None:
    """Write the notebook, the page and its pictures."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which differ from run to run
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    nbformat.write(notebook, NOTEBOOK)
    named = {"output_files_dir": PICTURES.name}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources=named)
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir()
    for name, content in resources["outputs"].items():
        (DOCS / name).write_bytes(content)
    text = re.sub(r"\n\s*!\[png\](.*)\n\s*", r"\n\n![Picture]\1\n\n", text)
    (DOCS / "tutorial.md").write_text(text.strip() + "\n", encoding="utf-8")


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return the outputs with a printed text in one part, without warnings, a picture once."""
    texts = [x for x in outputs if x.output_type == "stream" and x.name == "stdout"]
    others = [x for x in outputs if x.output_type != "stream"]
    for x in others:
        x.get("data", {}).pop("image/jpeg", None)  # Pillow shows a picture as a PNG, too
    if texts:
        texts[0].text = "".join(x.text for x in texts)
    return texts[:1] + others


if __name__ == "__main__":
    sys.exit(main())
