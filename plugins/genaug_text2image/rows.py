"""Files of prompts: JSON Lines with a file name and a text, as SENSE's are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from genaug.errors import DataError
from genaug.sources.config import FolderOptions
from genaug.sources.listing import strip_suffix


@dataclass(frozen=True, slots=True)
class Row:
    """One line: the image it speaks of, the prompt, and whatever else the line holds."""

    file_name: str
    text: str
    more: Mapping[str, Any]

    @property
    def sample_id(self) -> str:
        """What the sample is called; endings such as ``_leftImg8bit`` belong to file names only."""
        key = self.more.get("key")
        return key if isinstance(key, str) and key else id_of(self.file_name)


def read_rows(path: Path, *, growing: bool = False) -> dict[str, Row]:
    """Return sample id -> row, in the order of the file; blank lines do not count.

    The id is the row's ``key``, which written captions have, else the file name without folders and without the ending
    of a picture.

    Args:
        path: The file.
        growing: Processes append to it: a last line that a crash cut does not count, and of several rows for one id the
            first does.

    Raises:
        DataError: Unreadable, empty, or lines that are no such rows; all of those are listed.
    """
    try:
        text = path.read_text("utf-8-sig", errors="replace" if growing else "strict")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the prompts cannot be read: {error}", where=str(path)) from error
    lines = text.split("\n")
    if growing and lines[-1] and _row(lines[-1])[0] is None:
        del lines[-1]
    rows: dict[str, Row] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row, problem = _row(line)
        sample_id = "" if row is None else row.sample_id
        if row is not None and sample_id in rows:
            if growing:
                continue
            problem = f"a second prompt for {sample_id!r}"
        if problem:
            problems.append(f"line {number}: {problem}")
        elif row is not None:
            rows[sample_id] = row
    hint = 'A line is {"file_name": "street_01.png", "text": "A busy street ..."}'
    if problems:
        raise DataError(f"{len(problems)} lines cannot be used", problems=problems, where=str(path), hint=hint)
    if not rows and not growing:
        raise DataError("no prompt in it", where=str(path), hint=hint)
    return rows


def id_of(file_name: str) -> str:
    """Return the sample id that a file name stands for."""
    name = PurePosixPath(file_name.replace("\\", "/")).name
    return strip_suffix(name, FolderOptions.model_fields["image_suffixes"].default) or name


def _row(line: str) -> tuple[Row | None, str]:
    """Return a row, or what is wrong with the line."""
    try:
        data = json.loads(line)
    except ValueError as error:
        return None, f"not JSON: {error}"
    if not isinstance(data, dict):
        return None, f"a {type(data).__name__} where a table belongs"
    for key in ("file_name", "text"):
        if not isinstance(data.get(key), str) or not data[key].strip():
            return None, f"no text under the key {key!r}"
    more = {key: value for key, value in data.items() if key not in ("file_name", "text")}
    return Row(data["file_name"], data["text"].strip(), more), ""
