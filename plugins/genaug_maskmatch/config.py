"""Options of MaskMatch. Light: pydantic only."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from genaug.config import Options

Sampling = Literal["random", "block", "grid"]
Grid = Literal["ceil", "round"]
Average = Literal["probs", "logits"]


class PatchMaskOptions(Options):
    """Options of the mixer ``patch-mask`` (MaskMatch, local consistency)."""

    patch: int = Field(32, ge=1, description="Side of a patch in pixels, the paper's p (section 4.1).")
    ratio: float = Field(0.7, ge=0, le=1, description="Share of hidden patches, the paper's gamma (section 4.1).")
    sampling: Sampling = Field(
        "random",
        description="Each patch for itself (Table 9's best), in rectangles of many patches, or the same ones of every "
        "2x2 patches; the rules of the last two are ours, after BEiT and MAE.",
    )
    grid: Grid = Field(
        "ceil",
        description="Sides that the patch does not divide: cut the last patches off (ours), or stretch a rounded "
        "number of patches (MIC's code).",
    )
    fill: float = Field(
        0.0, allow_inf_nan=False, description="Value of hidden pixels: 0, the mean colour of normalised images (paper)."
    )
    allow_all: bool = Field(False, description="Accept ratio 1, which hides every image entirely (ours).")

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.ratio == 1 and not self.allow_all:
            raise ValueError("ratio 1 hides every image entirely. Set allow_all if you mean it")
        return self


class MaskMatchOptions(Options):
    """Options of the labeler ``maskmatch`` (MaskMatch, multi-scale ensembling)."""

    scales: tuple[float, ...] = Field(
        (1.0, 0.7, 1.5), description="Scales at which the teacher sees an image (section 4.1)."
    )
    threshold: float = Field(0.9, ge=0, le=1, description="Least probability of a kept pixel, the paper's tau.")
    strict: bool = Field(True, description="Keep above the threshold only (eq. 3; the text says the opposite).")
    average: Average = Field(
        "probs",
        description="Average probabilities (ours: tau is a probability), or logits (eq. 7 as printed).",
    )
    multiple_of: int = Field(
        1,
        ge=1,
        description="Round scaled sides to a multiple, for models that want one (patch size of a ViT; ours). The terms "
        "follow unless they have their own.",
    )
    max_side: int | None = Field(
        None,
        ge=1,
        description="Refuse longer sides than this, here and in the terms, before memory or positions run out (ours).",
    )
    align_corners: bool = Field(False, description="Of the bilinear resizing; as your model resizes (ours).")

    @field_validator("scales")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(not 0 < scale <= 4 for scale in value):
            raise ValueError("one or more numbers above 0 and at most 4")
        return value
