"""Build the documentation site: the pages of docs/, the reference from the code, one HTML folder.

    python docs/site/build.py build/docs

Nothing generated is kept in the repository. The site lies in build/docs/html; any warning is an error.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from reference import pages, python_pages
from sphinx.cmd.build import build_main

DOCS = Path(__file__).resolve().parents[1]
#: Folder of pages -> heading of its part of the navigation, in this order.
PARTS = {
    "tutorial": "Tutorial",
    "how-to": "How to",
    "explanation/methods": "Methods",
    "explanation": "Explanation",
    "reference": "Reference",
    "": "Project",
}
KEPT = {".md", ".png"}


def stage(folder: Path) -> None:
    """Fill an empty folder with the pages as they are, the reference, and the navigation on the front page."""
    for source in sorted(DOCS.rglob("*")):
        if source.suffix in KEPT and source.is_file():
            target = folder / source.relative_to(DOCS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for name, text in {**pages(), **python_pages()}.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
    front = folder / "index.md"
    front.write_text(front.read_text("utf-8") + "".join(_navigation(folder)), "utf-8")


def _navigation(folder: Path) -> list[str]:
    parts = []
    for part, heading in PARTS.items():
        found = sorted(path.relative_to(folder).as_posix() for path in (folder / part).glob("*.md"))
        names = "\n".join(name.removesuffix(".md") for name in found if name != "index.md")
        parts.append(f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{names}\n```\n")
    return parts


def build(out: Path) -> int:
    """Write the site to ``out/html``; returns Sphinx's exit code."""
    pages_folder = out / "pages"
    shutil.rmtree(pages_folder, ignore_errors=True)
    pages_folder.mkdir(parents=True)
    stage(pages_folder)
    options = ["-W", "--keep-going", "-q", "-E", "-b", "html", "-c", str(DOCS / "site"), "-d", str(out / "doctrees")]
    return build_main([*options, str(pages_folder), str(out / "html")])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for everything that is written")
    folder = parser.parse_args().out
    code = build(folder)
    if code == 0:
        print(folder / "html/index.html")
    sys.exit(code)
