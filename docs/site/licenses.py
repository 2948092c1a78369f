"""Write docs/licenses.md: the licence of every distribution that genaug and its extras bring.

    python docs/site/licenses.py

Licences are read from the metadata of what is installed, so run it where all extras are, or as many as possible; what
is not installed keeps the licence that the page gives it. `tests/docs/test_licenses.py` compares the page with the
environment that runs the tests.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).resolve().parents[1] / "licenses.md"
MARKS = ("<!-- begin: written by docs/site/licenses.py -->\n", "<!-- end -->\n")
NOT_STATED = "not stated"


def requirements(name: str, extra: str = "") -> Iterator[Requirement]:
    """Yield what an installed distribution needs with an extra ("" for none) on this machine; nothing if absent."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def declared() -> dict[str, list[Requirement]]:
    """Return extra ("required" for none) -> requirements, from pyproject.toml; extras are not unfolded."""
    project = tomllib.loads((PAGE.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"required": project["dependencies"], **project["optional-dependencies"]}
    found = {extra: [Requirement(line) for line in lines] for extra, lines in groups.items()}
    return {extra: [r for r in part if r.name != "genaug"] for extra, part in found.items()}


def direct() -> dict[str, list[str]]:
    """Return distribution -> extras that name it."""
    found: dict[str, list[str]] = {}
    for extra, part in declared().items():
        for requirement in part:
            found.setdefault(canonicalize_name(requirement.name), []).append(extra)
    return found


def indirect() -> set[str]:
    """Return the installed distributions that the direct ones, as far as they are installed, bring in their turn."""
    todo = [(r.name, extra) for part in declared().values() for r in part for extra in ("", *r.extras)]
    done: set[tuple[str, str]] = set()
    while todo:
        name, extra = todo.pop()
        if (canonicalize_name(name), extra) not in done:
            done.add((canonicalize_name(name), extra))
            todo += [(r.name, asked) for r in requirements(name, extra) for asked in ("", *r.extras)]
    return {name for name, _ in done if name not in direct() and license_of(name) is not None}


def license_of(name: str) -> str | None:
    """Return the licence that an installed distribution declares, None if it is not installed."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    stated = about.get("License-Expression") or _classified(about.get_all("Classifier") or []) or _short(about)
    return stated or NOT_STATED


def _classified(classifiers: list[str]) -> str | None:
    names = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    return " and ".join(names) or None


def _short(about: metadata.PackageMetadata) -> str | None:
    """Return the field License if it is a name and not the whole text."""
    text = about.get("License") or ""
    return text if 0 < len(text) < 60 and not re.search(r"\n|^unknown$", text, flags=re.I) else None


def tables(known: dict[str, str]) -> str:
    """Return the generated part of the page.

    Args:
        known: Licences on the page now, for direct dependencies that are not installed here.
    """
    lines = ["| distribution | brought by | licence |", "|---|---|---|"]
    for name, extras in sorted(direct().items()):
        stated = license_of(name) or known.get(name, NOT_STATED)
        lines.append(f"| {name} | {', '.join(extras)} | {stated} |")
    lines += ["", "What those bring in their turn:", "", "| distribution | licence |", "|---|---|"]
    lines += [f"| {name} | {license_of(name)} |" for name in sorted(indirect())]
    return "\n".join(lines) + "\n"


def rows(page: str) -> dict[str, str]:
    """Return distribution -> licence of both tables of a page."""
    part = page.split(MARKS[0], 1)[1].split(MARKS[1], 1)[0]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:2] == "| "]
    return {row[0]: row[-1] for row in found if row[0] != "distribution"}


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    PAGE.write_text(before + MARKS[0] + tables(rows(text)) + MARKS[1] + after, "utf-8")
