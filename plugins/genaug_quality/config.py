"""Options of the sections and filters of quality. Light: pydantic only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from genaug.config import Options
from genaug_basics.config import FilterOptions


class DensityOptions(Options):
    """Options of the section ``density``."""

    min_area: float = Field(
        0.0005, ge=0, le=1, description="Least share of the image's pixels of a region that counts (ours)."
    )


class FidelityOptions(Options):
    """Options of the section ``fidelity``."""

    glcm: Literal["both", "released", "joint"] = Field(
        "both",
        description="released: the entropy of the values of the co-occurrence matrices (Diffusion-4K's code); joint: "
        "the entropy of the matrices (ours).",
    )
    jpeg_quality: int = Field(
        95, ge=1, le=100, description="JPEG quality of the compression ratio; the papers say JPEG, 95 is ours."
    )
    side: int | None = Field(
        None,
        ge=1,
        description="Short side that all images are brought to; by default the smallest one where sizes differ.",
    )


class DuplicatesOptions(Options):
    """Options of the section ``duplicates``."""

    radius: int = Field(6, ge=0, le=64, description="Most bits, of 64, that near-duplicates differ in (ours).")


class AgreementOptions(FilterOptions):
    """Options of the section ``agreement``: the predictor is asked about every image of both sets."""

    threshold: float = Field(0.95, gt=0, le=1, description="Least probability of a kept pseudo-label (FixMatch).")
    min_area: float = Field(0.0005, ge=0, le=1, description="As of the section density.")
