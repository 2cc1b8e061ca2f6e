"""Pictures of every page of the built site, as wide as a desk's screen and as a telephone.

    make docs
    python docs/screenshots.py [--out out/screenshots] [PAGE ...]

It needs Chromium (`apt-get install chromium`) and nothing else; the site is read from the disk. A
person looks at the pictures: nothing is asserted but that no page is wider than its screen.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SITE = Path(__file__).resolve().parents[1] / "site"
WIDTHS = {"desk": 1280, "phone": 390}
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
# A window of headless Chromium is at least 500 wide: a page of the wanted width is framed in it.
FRAME = """<!doctype html><style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>
<iframe src="{address}" width="{width}" height="{height}"></iframe>"""


def main() -> int:
    """Take the pictures, and return 1 if a page is wider than its screen."""
    parser = argparse.ArgumentParser(description="Take pictures of the built site.")
    parser.add_argument("pages", nargs="*", help="Pages such as docs/forms.html (default: all).")
    parser.add_argument("--out", type=Path, default=Path("out/screenshots"), help="Folder.")
    parser.add_argument("--height", type=int, default=4000, help="Height of a picture in pixels.")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    # The page 404 wants a server.
    pages = options.pages or [page for page in found if page != "404.html"]
    wide = [
        f"{page} on a {name}"
        for page in pages
        for name in WIDTHS
        if not picture(page, name, options)
    ]
    print("\n".join(["wider than the screen:", *wide] if wide else ["no page is too wide"]))
    return 1 if wide else 0


def picture(page, name, options) -> bool:
    """Take one picture, and return whether the page is no wider than the screen."""
    width = WIDTHS[name]
    target = options.out / f"{page.removesuffix('.html').replace('/', '_')}.{name}.png"
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(
            FRAME.format(address=(SITE / page).as_uri(), width=width, height=options.height),
            encoding="utf-8",
        )
        size = f"--window-size={max(width, 500)},{options.height}"
        command = [*CHROMIUM, f"--user-data-dir={folder}/profile", size]
        subprocess.run(
            [*command, f"--screenshot={target}", frame.as_uri()], capture_output=True, check=True
        )
        found = measured(command, page, width, Path(folder))
    return found <= width


def measured(command, page, width, folder) -> int:
    """Return the width that the page takes on a screen of some width."""
    probe = folder / "probe.html"
    script = """<script>addEventListener("load", () => setTimeout(() => {
      document.title = "width=" + document.documentElement.scrollWidth }, 300))</script></body>"""
    base = f'<head><base href="{(SITE / page).as_uri()}">'
    text = (
        (SITE / page)
        .read_text(encoding="utf-8")
        .replace("<head>", base, 1)
        .replace("</body>", script, 1)
    )
    probe.write_text(text, encoding="utf-8")
    frame = folder / "outer.html"
    frame.write_text(
        FRAME.format(address=probe.as_uri(), width=width, height=900) + REPORT, encoding="utf-8"
    )
    options = ["--allow-file-access-from-files", "--virtual-time-budget=4000", "--dump-dom"]
    done = subprocess.run(
        [*command, *options, frame.as_uri()], capture_output=True, text=True, check=True
    )
    return int(re.search(r"width=(\d+)</title>", done.stdout)[1])


REPORT = """<script>addEventListener("load", () => setTimeout(() => {
  document.title = document.querySelector("iframe").contentDocument.title }, 900))</script>
<title></title>"""


if __name__ == "__main__":
    sys.exit(main())
