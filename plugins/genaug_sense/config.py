"""Options of the labelers ``sense`` and ``sense-query``. Light: pydantic only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from genaug.config import Options


class TransportOptions(Options):
    """What both labelers share. C: released code; ours: a decision where paper and code are silent."""

    beta: float = Field(0.05, ge=0.01, le=1, description="Temperature of the transport (C: fixed in the call).")
    iterations: int = Field(3, ge=1, description="Sinkhorn iterations, classes first, pixels last (C).")
    min_pixels: int = Field(
        1, ge=1, description="With support 'present': pixels of which a class must be the most likely one (ours)."
    )
    marginal: tuple[float, ...] | None = Field(
        None, description="Share of each class, in the order of the labels; equal shares when absent (C)."
    )
    ot_scope: Literal["valid", "kept", "all"] = Field(
        "valid",
        description="Pixels that are shared out: all but padding (ours), those the teacher is sure of (ours), or "
        "padding too (C).",
    )
    tta: Literal["none", "half", "full"] = Field(
        "none",
        description="Ask the teacher about flipped and scaled images too: never (paper), for the first half of the "
        "batch (C), or for all of it.",
    )
    scales: tuple[float, ...] = Field(
        (1.0,),
        min_length=1,
        description="Scales of tta, each with its mirror image (C: 1; 1 and 1.25 for ADE20K, COCO).",
    )
    multiple: int = Field(
        1,
        ge=1,
        description="Scaled sizes are rounded to multiples of this (C: the patch size, 14). The terms follow unless "
        "they have a multiple_of.",
    )
    align_corners: bool = Field(
        False, description="Of the resizing of images and answers for tta; as your model resizes (ours)."
    )

    @field_validator("marginal")
    @classmethod
    def _shares(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not (all(0 <= share < float("inf") for share in value) and sum(value) > 0):
            raise ValueError(f"{list(value)}: shares that are not negative, and not all 0")
        return value

    @field_validator("scales")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < scale <= 4 for scale in value):
            raise ValueError("numbers above 0 and at most 4")
        return value


class SenseOptions(TransportOptions):
    """Options of the labeler ``sense``; the defaults are those of the released code for pixel models."""

    support: Literal["fp32", "exact", "present"] = Field(
        "fp32",
        description="Entries that may get mass: those the released float32 code does not lose (C), all, or those of "
        "the classes that the teacher sees somewhere (ours).",
    )
    target: Literal["soft", "hard"] = Field(
        "soft", description="Train towards the whole target (C), or its best class."
    )
    threshold: float = Field(0.95, ge=0, le=1, description="Least confidence of a kept pixel (paper, C).")
    gate: Literal["pre", "post"] = Field(
        "pre", description="What the threshold is for: the teacher's probability (C), or the target's largest entry."
    )


class QueryOptions(TransportOptions):
    """Options of the labeler ``sense-query``; the defaults are those of the released code, but for `support`."""

    support: Literal["fp32", "exact", "present"] = Field(
        "present",
        description="As of 'sense'. The released code has no clamp that works here: classes that are absent take the "
        "mass of large ones (ours).",
    )
    query_cost: Literal["softmax_score", "neg_log_score"] = Field(
        "softmax_score", description="Cost of a class: -log of the softmax of the scores (C), or of the score (paper)."
    )
    target: Literal["soft", "hard"] = Field("hard", description="As of 'sense'; the set loss needs hard ones (C).")
    threshold: float = Field(0.95, ge=0, le=1, description="Least confidence of a kept pixel (paper, C).")
    gate: Literal["pre", "post"] = Field(
        "post",
        description="What the threshold is for: the target's largest entry (C), or the teacher's share of scores.",
    )
    image_gate: float | None = Field(
        0.95,
        ge=0,
        le=1,
        description="Least mean confidence of an image's queries, or none; below it nothing of the image counts (C).",
    )
