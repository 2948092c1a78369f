"""Readers of labelled and unlabelled data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genaug.sources.base import Source


def checked(source: Source, *, where: str = "data") -> Source:
    """Return `source` after reading all of it once; what runs call before they spend hours on it.

    Raises:
        DataError: There are problems; all of them are listed.
    """
    from genaug.errors import DataError

    problems = source.check()
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the data"
        raise DataError(count, problems=problems, where=where, hint="Mend the files; genaug never changes them")
    return source
