"""Figures for people: as few digits as will do, and enough to tell different ones apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

_MOST = 12
#: Below this relative difference two figures are one, computed along two ways.
SAME = 1e-9


def told(numbers: Sequence[float | None], least: int = 3) -> list[str | None]:
    """Return numbers as text, with `least` significant digits or as many more as tell different ones apart."""
    known = sorted(number for number in numbers if number is not None)
    pairs = [(a, b) for a, b in itertools.pairwise(known) if not math.isclose(a, b, rel_tol=SAME)]
    enough = (digits for digits in range(least, _MOST) if all(f"{a:.{digits}g}" != f"{b:.{digits}g}" for a, b in pairs))
    digits = next(enough, _MOST)
    return [None if number is None else f"{number:.{digits}g}" for number in numbers]


def told_row(row: Mapping[str, Any], least: int = 3) -> dict[str, tuple[str, str | None]]:
    """Return both sides of a statistic as text that may stand side by side: set -> value, and interval if any."""
    names, nothing = ("synthetic", "real"), (None, None)
    texts = told([n for name in names for n in (row[name]["value"], *(row[name]["interval"] or nothing))], least)
    return {
        name: (value or "none", None if low is None else f"{low} to {high}")
        for name, (value, low, high) in zip(names, (texts[:3], texts[3:]), strict=True)
    }
