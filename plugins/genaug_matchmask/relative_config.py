"""Options of the relative filter. Light: pydantic only."""

from __future__ import annotations

from pydantic import Field

from genaug_basics.config import PredictorOptions


class RelativeOptions(PredictorOptions):
    """Options of the filter ``relative`` (MatchMask, eqs. 7 and 8)."""

    min_kept: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Drop a sample when a smaller share of its labelled pixels is kept; 0 drops none (paper).",
    )
