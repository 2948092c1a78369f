"""Options of the basic predictors, filters and sources. Light: pydantic only."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from genaug.config import Options


class PredictorOptions(Options):
    """What everything that asks a segmenter needs to know of it."""

    predictor: str | dict[str, Any] = Field(
        description="The segmenter: a folder or .pt2 file, or {use: <predictor>, ...its options}."
    )
    batch_size: int = Field(8, ge=1, description="Images per forward pass of the predictor.")

    @field_validator("predictor")
    @classmethod
    def _names_one(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        if not value or (isinstance(value, dict) and not isinstance(value.get("use"), str)):
            raise ValueError("a path, or a table with the key 'use'")
        return value
