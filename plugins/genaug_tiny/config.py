"""Options of the components of this package. Light: pydantic only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from genaug.config import Options

if TYPE_CHECKING:
    from genaug.models import ModelCheck


class SmallUNetOptions(Options):
    """Options of the predictor ``small-unet``; with ``path`` the others mean nothing."""

    path: str | None = Field(
        None, min_length=1, description="Folder of a trained one; absent: train it on the labelled samples first."
    )
    steps: int = Field(400, ge=1, description="Optimiser steps.")
    batch_size: int = Field(16, ge=1, description="Labelled samples per step, drawn with replacement.")
    learning_rate: float = Field(4e-3, gt=0, description="Peak of AdamW's one-cycle schedule.")
    width: int = Field(20, ge=1, description="Channels at full resolution.")
    size: tuple[int, int] | None = Field(
        None,
        description="[height, width] it works at; by default the samples' own if they share one with no side above "
        "128, else [128, 128].",
    )

    def check_models(self, look: ModelCheck) -> None:
        """Look for the trained one and compare its classes."""
        if self.path is None:
            return
        from genaug_tiny.predictor import SmallUNetPredictor

        with look.reporting("path"):
            SmallUNetPredictor(labels=look.labels, path=look.path(self.path))
