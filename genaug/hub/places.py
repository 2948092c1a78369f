"""Paths of this machine, which are nobody else's business: found and taken out of what is published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REMOVED = "<removed>"

# A whole value that is a path, however odd its folders are called.
_WHOLE = re.compile(r"\s*(?:file:|/(?!/)|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\)\S.*", re.DOTALL)
# A path inside a sentence: at least two levels, not part of an address or of "and/or"; with spaces between quotes only.
_INSIDE = re.compile(
    r"""(?<=['"`])(?:~[\w.-]*)?/[^'"`\n/]+(?:/[^'"`\n/]+)+/?(?=['"`])"""
    r"""|(?<![\w.:/~<>@-])(?:file://)?(?:~[\w.-]*)?/(?:[^\s/'"`<>|:*?,;()\[\]{}]+/)+[^\s/'"`<>|:*?,;()\[\]{}]*"""
    r"""|(?<![\w])[A-Za-z]:\\[^\s'"`<>|*?,;()\[\]{}]+"""
)


def is_machine_path(value: str) -> bool:
    """Return True if a text is, as a whole, a path that means something on this machine only."""
    return bool(_WHOLE.fullmatch(value))


def without_paths(text: str) -> str:
    """Return a text whose machine paths are cut down to their last part."""
    if is_machine_path(text) and "\n" not in text:
        return _short(text)
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?![\w-])", "~", text)
    return _INSIDE.sub(lambda found: _short(found.group()), text)


def _short(path: str) -> str:
    last = re.split(r"[\\/]+", path.strip().rstrip("\\/"))[-1]
    return f"{REMOVED}/{last}" if last and not last.endswith(":") and not last.startswith("~") else REMOVED


def clean(value: Any) -> Any:
    """Return a JSON-like value without machine paths, keys included; equal to `value` if there were none."""
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, Mapping):
        return {without_paths(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def machine_paths(value: Any) -> list[str]:
    """Return the texts of a JSON-like value that hold machine paths."""
    if isinstance(value, str):
        return [value] if without_paths(value) != value else []
    if isinstance(value, Mapping):
        return [text for item in value.items() for part in item for text in machine_paths(part)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in machine_paths(item)]
    return []
