"""Sphinx's configuration; docs/site/build.py calls it on a copy of the pages with the reference added."""

from __future__ import annotations

import re
from typing import Any

from reference import ABSENT

import genaug

project = "genaug"
copyright = "The genaug authors"
version = release = genaug.__version__
html_theme = "furo"
html_title = f"genaug {version}"
html_copy_source = False
html_show_sphinx = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
default_role = "literal"

autodoc_mock_imports = ABSENT
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autoclass_content = "both"
napoleon_numpy_docstring = False
napoleon_use_rtype = False


def _example_is_code(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    """Show what follows ``Example:`` as code; napoleon takes it for prose."""
    text = "\n".join(lines)
    text = re.sub(r"^Example:\n((?:    .*\n?|\n)+)", r"**Example**\n\n.. code-block:: python\n\n\1\n", text, flags=re.M)
    lines[:] = text.split("\n")


def setup(app: Any) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", _example_is_code, priority=100)
