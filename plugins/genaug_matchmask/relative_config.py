"""Options of the relative filter. Light: pydantic only."""

from __future__ import annotations

from genaug_basics.config import PixelFilterOptions


class RelativeOptions(PixelFilterOptions):
    """Options of the filter ``relative`` (MatchMask, eqs. 7 and 8), which has no threshold to set."""
