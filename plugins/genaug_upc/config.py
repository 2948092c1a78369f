"""Options of UPC. Light: pydantic only."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from genaug.config import Options

Reduce = Literal["sum", "mean"]


class UpcOptions(Options):
    """Options of the mixer ``upc`` (UPC, section 3)."""

    grid: int = Field(4, ge=1, description="Patches per side, the paper's N (section 4.1, Table 8).")
    ks: tuple[int, ...] = Field(
        (2, 3, 5), min_length=1, description="How many patches are replaced, one number per view (RAS, section 4.1)."
    )
    ras: Literal["sample", "expand"] = Field(
        "sample",
        description="One view per image, its number of patches drawn from `ks` (ours, costs nothing), or one view for "
        "every number in `ks` (the paper; the student sees that many times the images).",
    )
    score: Literal["entropy", "margin", "random"] = Field(
        "entropy",
        description="What makes a patch uncertain: entropy (eq. 1), 1 minus the margin of the two largest "
        "probabilities (ours), or chance (the control of Table 7).",
    )
    reduce: Reduce = Field(
        "sum",
        description="Pixels to patch: sum (eq. 3), or mean over the patch's area (ours). They differ only where the "
        "grid does not divide the image's sides.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        wrong = [k for k in self.ks if not 0 <= k <= self.grid**2]
        if wrong:
            raise ValueError(f"ks: {wrong[0]} patches of {self.grid}x{self.grid}. Allowed: 0 to {self.grid**2}")
        return self
