"""Arguments of transforms as JSON has them, so that pipelines can be saved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from genaug.errors import SampleError, did_you_mean
from genaug.labels import LabelSpace

#: Key under which a call tells what belongs to its image.
METADATA_KEY = "genaug_metadata"
#: What it may tell.
KNOWN = ("id", "donors")


def _plain(value: Any) -> Any:
    """Turn a class table into text, numbers, lists and tables whose keys are text."""
    if isinstance(value, LabelSpace):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _path_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


#: A class table as recipes write it.
LabelTable = Annotated[Any, BeforeValidator(_plain)]
#: A folder.
Folder = Annotated[str, BeforeValidator(_path_text)]


def metadata(data: Mapping[str, Any], key: str, name: str, *, where: str, what: str) -> Any:
    """Return an entry of the table that a call has under `key`.

    Args:
        data: Everything that the pipeline was called with.
        key: Where the table is.
        name: ``id`` or ``donors``.
        where: Named in errors.
        what: What the entry is, for people.

    Raises:
        SampleError: No such table or entry, or the table has a key of another name.
    """
    table = {} if data.get(key) is None else data[key]
    if not isinstance(table, Mapping):
        found = f"{key} is a {type(table).__name__}"
        raise SampleError(found, where=where, allowed=f"a table such as {{'{name}': ...}}")
    for other in table:
        if other not in KNOWN:
            raise SampleError(f"{key} has the key {other!r}", where=where, hint=did_you_mean(str(other), KNOWN))
    if table.get(name) is None:
        raise SampleError(f"no {what}", where=where, hint=f"Call the pipeline with {key}={{'{name}': ...}}")
    return table[name]
