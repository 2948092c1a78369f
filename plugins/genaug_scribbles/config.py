"""Options of the sources of scribbles. Light: pydantic only."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from genaug.config import Options
from genaug.sources.config import MAX_PIXELS, FolderOptions


class ScribbleSupOptions(Options):
    """Options of the source ``scribblesup``; paths are relative to the recipe."""

    images: str = Field(min_length=1, description="Folder of the images.")
    annotations: str = Field(min_length=1, description="Folder of the XML files, called as the images are.")
    labeled: str | None = Field(
        None, min_length=1, description="Text file that names the samples to use; everything when absent."
    )
    image_suffixes: tuple[str, ...] = Field(
        FolderOptions.model_fields["image_suffixes"].default, min_length=1, description="Endings of image files."
    )
    annotation_suffix: str = Field(".xml", min_length=1, description="What replaces the image's ending in XML names.")
    recursive: bool = Field(False, description="Look into sub-folders too.")
    gray: bool = Field(False, description="Accept 8-bit gray images and repeat their channel three times.")
    max_pixels: int = Field(MAX_PIXELS, gt=0, le=MAX_PIXELS, description="Largest image that is decoded.")
    stroke_width: int = Field(
        3, ge=1, le=31, description="Width in pixels that strokes are drawn with (3: RLoss's conversion)."
    )
    origin: Literal[0, 1] = Field(
        0, description="Coordinates of the top left pixel; 1 where the strokes were written by MATLAB (ours)."
    )
    tags: dict[str, str | None] = Field(
        default_factory=dict,
        description="Tag in the files -> class name, where they differ; null leaves the tag's strokes out.",
    )
    contradictions: Literal["error", "ignore"] = Field(
        "error", description="Pixels under strokes of two classes: an error, or set to the ignore index and noted."
    )
    outside: Literal["error", "clip"] = Field(
        "error", description="Points outside the image: an error, or what lies outside is cut off and noted."
    )


class MadeScribblesOptions(Options):
    """Options of the source ``scribbles``; the defaults are ours, near the statistics of ScribbleSup."""

    source: dict[str, Any] = Field(description="The source of the masks: {format: folder, images: ..., masks: ...}.")
    budget: float = Field(0.03, gt=0, le=1, description="Largest share of an image's pixels that is labelled.")
    width: int = Field(3, ge=1, le=31, description="Width of a stroke in pixels; less where its region is thinner.")
    strokes: int = Field(6, ge=1, description="Most strokes of a class in an image; its largest regions get one each.")
    min_region: int = Field(
        32, ge=1, description="Smaller regions, in pixels, get no stroke, but for the largest one of a class."
    )
    shrink: float = Field(
        0.3, ge=0, lt=1, description="Strokes keep this share of a region's inner radius away from its outline."
    )
    cut: float = Field(0.2, ge=0, lt=0.5, description="Each end of a stroke is cut by up to this share of its length.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the cuts; each image has a stream of its own.")

    @field_validator("source")
    @classmethod
    def _names_one(cls, value: dict[str, Any]) -> dict[str, Any]:
        value = {"format": "folder", **value}
        if not isinstance(value["format"], str):
            raise ValueError("a table of a source's options, with its name as 'format'")
        return value
