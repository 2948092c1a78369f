"""Readers of labelled and unlabelled data."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genaug.sources.base import Source

log = logging.getLogger("genaug")


def checked(source: Source, *, where: str = "data") -> Source:
    """Return `source` after reading all of it once; what runs call before they spend hours on it.

    What is no problem but should not stay unsaid is logged as a warning.

    Raises:
        DataError: There are problems; all of them are listed.
    """
    from genaug.errors import DataError
    from genaug.sources.survey import NAMED

    survey = source.survey()
    for note in survey.notes:
        log.warning("%s: %s", where, note)
    if survey.problems:
        count = f"{len(survey.problems)} problem{'s' if len(survey.problems) > 1 else ''} in the data"
        cut = any(len(problem.subjects) > NAMED for problem in survey.problems)
        more = "; 'genaug check RECIPE --all' names every file" if cut else ""
        hint = f"Mend the files; genaug never changes them{more}"
        raise DataError(count, problems=map(str, survey.problems), where=where, hint=hint)
    return source
