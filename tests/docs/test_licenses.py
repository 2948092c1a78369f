"""docs/licenses.md names every dependency with the licence that its metadata declare; CITATION.cff fits the package."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import genaug

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/licenses.md").read_text("utf-8")


@pytest.fixture(scope="module")
def licenses() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs/site")
        yield importlib.import_module("licenses")


def test_every_direct_dependency_is_listed_with_its_licence(licenses: Any) -> None:
    stated = licenses.rows(PAGE)
    direct = licenses.direct()
    assert {"torch", "pot", "ray", "sphinx", "pytest"} <= set(direct) <= set(stated)
    for name, extras in direct.items():
        found = licenses.license_of(name)
        assert stated[name] == (found or stated[name]), f"{name}: run docs/site/licenses.py"
        assert f"| {name} | {', '.join(extras)} |" in PAGE
        assert stated[name] != licenses.NOT_STATED


def test_what_comes_with_them_is_under_a_licence_of_the_page(licenses: Any) -> None:
    """Which versions pip picks changes from day to day; a licence that nobody has looked at must not slip in."""
    stated = licenses.rows(PAGE)
    brought = licenses.indirect()
    assert {"scipy", "filelock", "markupsafe"} <= brought
    cuda = re.compile(r"nvidia-.*|triton|cuda-.*")  # what a CUDA build of torch brings; the page names them as a whole
    new = {name: licenses.license_of(name) for name in brought if not cuda.fullmatch(name)}
    assert {name: found for name, found in new.items() if found not in stated.values()} == {}
    bound = [name for name, found in stated.items() if re.search(r"GPL|General Public", found)]
    assert bound == ["docutils"]  # of the extra docs; the page says why


def test_the_licence_is_the_one_that_metadata_declare(licenses: Any) -> None:
    assert licenses.license_of("no-such-distribution") is None
    assert licenses.license_of("pluggy") == "MIT License"  # classifier
    assert licenses.license_of("pytest") == "MIT"  # expression
    assert licenses._short({"License": "text " * 100}) is None


def test_the_citation_file_fits_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == genaug.__version__
    assert citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors", "references"} <= set(citation)
    assert len(citation["references"]) == 5
