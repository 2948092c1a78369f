"""Class names that somebody has left in a folder: a small reader of the usual files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from genaug.errors import ConfigError
from genaug.labels import Color, LabelSpace

_FILES = ("classes.json", "labels.json", "id2label.json", "classes.txt", "labels.txt", "class_names.txt")
_NUMBERED = re.compile(r"(\d+)\s*[\s:,;=]\s*(\S.*)")


@dataclass(frozen=True, slots=True)
class NamesFile:
    """Class names and what else the file says.

    Args:
        path: Where they were found.
        names: id -> name.
        ignore_index: The id that the file calls ignored, None if it calls none.
        colors: id -> RGB.
    """

    path: Path
    names: Mapping[int, str]
    ignore_index: int | None = None
    colors: Mapping[int, Color] = field(default_factory=dict)


def find_names(root: Path) -> NamesFile | None:
    """Return the class names found in `root` or the folder above it, None without any that can be read."""
    for folder in (root, root.parent):
        tables = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]) if folder == root else []
        for path in (*(folder / name for name in _FILES), *tables):
            if path.is_file():
                found = _read(path)
                if found is not None:
                    return found
    return None


def _read(path: Path) -> NamesFile | None:
    """Read one file; None if it is about something else, which is no error in a stranger's folder."""
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix == ".txt":
            found = NamesFile(path, _from_lines(text))
        else:
            data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
            found = _from_data(path, data)
        # The class table knows best what ids, names and colours may be.
        LabelSpace(found.names, _unused(found), found.colors)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError, ConfigError):
        return None
    return found


def _unused(found: NamesFile) -> int:
    if found.ignore_index is not None:
        return found.ignore_index
    return next(i for i in range(255, -1, -1) if i not in found.names)


def _from_lines(text: str) -> dict[int, str]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        return {int(match.group(1)): match.group(2).strip() for match in numbered if match}
    return dict(enumerate(lines))


def _from_data(path: Path, data: Any) -> NamesFile:
    """Understand lists and tables of names, bare or under ``names``, ``classes``, and lists of {id, name, color}."""
    ignore, colors = None, {}
    if isinstance(data, Mapping):
        ignore = data.get("ignore_index")
        inner = next((data[key] for key in ("names", "classes", "id2label", "labels") if key in data), data)
    else:
        inner = data
    if not isinstance(inner, list | Mapping) or (isinstance(data, Mapping) and "generator" in data):
        raise TypeError("no table of names, or a recipe of ours, whose names may be placeholders")
    if isinstance(inner, list) and inner and all(isinstance(item, Mapping) for item in inner):
        names = {int(item.get("id", place)): item["name"] for place, item in enumerate(inner)}
        colors = {int(item.get("id", i)): tuple(item["color"]) for i, item in enumerate(inner) if item.get("color")}
    elif isinstance(inner, list):
        names = dict(enumerate(inner))
    elif inner and all(isinstance(value, int) for value in inner.values()):
        names = {number: name for name, number in inner.items()}
    else:
        names = {int(key): value for key, value in inner.items()}
    if ignore is not None:
        names.pop(ignore, None)
    colors = {i: color for i, color in colors.items() if i in names or i == ignore}
    return NamesFile(path, names, ignore, colors)
