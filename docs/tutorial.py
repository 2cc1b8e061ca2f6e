"""Execute the tutorial's notebook: `make tutorial`, or `python docs/tutorial.py --quick` for CI.

It writes the notebook with its outputs, and the same as a page: `docs/tutorial.md` with the pictures
in `docs/tutorial/`. `--quick` takes few steps and writes nothing.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

DOCS = Path(__file__).resolve().parent
NOTEBOOK, PICTURES = DOCS / "tutorial.ipynb", DOCS / "tutorial"
QUICK = "4"  # steps of a run
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def main() -> int:
    """Execute, and write unless it is a quick run."""
    parser = argparse.ArgumentParser(description="Execute the tutorial's notebook.")
    parser.add_argument("--quick", action="store_true", help="Few steps; write nothing.")
    quick = parser.parse_args().quick
    os.environ |= {"STEPS": QUICK} if quick else {}
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    notebook = nbformat.read(NOTEBOOK, as_version=4)
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
    nbformat.write(notebook, NOTEBOOK)
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"output_files_dir": PICTURES.name}
    )
    for name, content in resources["outputs"].items():
        PICTURES.mkdir(exist_ok=True)
        (DOCS / name).write_bytes(content)
    (DOCS / "tutorial.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
