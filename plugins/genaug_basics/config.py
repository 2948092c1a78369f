"""Options of the basic predictors, filters and sources. Light: pydantic only."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from genaug.config import Options
from genaug.sources.config import MAX_PIXELS

if TYPE_CHECKING:
    from genaug.models import ModelCheck
    from genaug.types import SamplePart


class PredictorOptions(Options):
    """What everything that asks a segmenter needs to know of it."""

    predictor: str | dict[str, Any] = Field(
        description="The segmenter: a folder or .pt2 file, or {use: <predictor>, ...its options}."
    )

    @field_validator("predictor")
    @classmethod
    def _names_one(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        if not value or (isinstance(value, dict) and not isinstance(value.get("use"), str)):
            raise ValueError("a path, or a table with the key 'use'")
        return value

    def check_models(self, look: ModelCheck) -> None:
        """Look for the segmenter."""
        look.predictor("predictor", self.predictor)


class FilterOptions(PredictorOptions):
    """Options of every filter that asks a segmenter."""

    batch_size: int = Field(8, ge=1, description="Images per forward pass of the predictor.")


class PixelFilterOptions(FilterOptions):
    """Options of every filter that sets pixels to the ignore index."""

    min_kept: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Drop a sample when a smaller share of its labelled pixels is kept; 0 drops none (the papers).",
    )

    @property
    def judges_unlabeled(self) -> bool:
        """Whether it can judge samples without masks."""
        return False


class ConfidenceOptions(PixelFilterOptions):
    """Options of the filter ``confidence``."""

    threshold: float = Field(
        0.95, gt=0, le=1, description="Least softmax probability of a kept pixel (FixMatch's 0.95; our choice here)."
    )
    of: Literal["prediction", "mask"] = Field(
        "prediction",
        description="Probability of the most likely class, or of the class that the mask asks for.",
    )


class ClassLossOptions(PixelFilterOptions):
    """Options of the filter ``class-loss`` (FreeMask)."""

    margin: float = Field(1.25, gt=0, description="Ignore a pixel above margin times its class's mean loss (FreeMask).")
    unseen: Literal["keep", "ignore"] = Field(
        "keep", description="Pixels of classes without a pixel in the real data, which have no mean loss (ours)."
    )

    @property
    def data_needs(self) -> Mapping[SamplePart, str]:
        """What of the labelled samples it takes mean losses of."""
        return {"image": "", "mask": ""}


class ClassHardnessOptions(FilterOptions):
    """Options of the filter ``class-hardness`` (FreeMask)."""

    @property
    def judges_unlabeled(self) -> bool:
        """Whether it can judge samples without masks."""
        return False

    @property
    def data_needs(self) -> Mapping[SamplePart, str]:
        """What of the labelled samples it takes mean losses of."""
        return {"image": "", "mask": ""}


class ExportedOptions(Options):
    """Options of the predictor ``exported``."""

    path: str = Field(min_length=1, description="A .pt2 file written by torch.export.save.")

    def check_models(self, look: ModelCheck) -> None:
        """Look for the file; torch.export writes a zip archive, which an incomplete copy is not."""
        path = look.path(self.path)
        if not path.is_file():
            found = "is no file" if path.exists() else "does not exist"
            look.problem("path", f"{path} {found}", allowed="a .pt2 file of torch.export.save")
        elif not zipfile.is_zipfile(path):
            look.problem("path", f"{path} is damaged or not a file of torch.export.save")


class TransformersOptions(Options):
    """Options of the predictor ``transformers``."""

    path: str = Field(
        min_length=1, description="A folder of save_pretrained: a semantic segmenter, MaskFormer or Mask2Former."
    )
    size: tuple[int, int] | None = Field(
        None, description="[height, width] the model works at; the images' own size by default."
    )

    def check_models(self, look: ModelCheck) -> None:
        """Look for the folder and for what the predictor reads of it first."""
        from genaug_basics.transformers_predictor import TransformersPredictor

        if look.elsewhere("path", self.path):
            return
        with look.reporting("path"):
            folder = TransformersPredictor(look.path(self.path)).path
            if not any(folder.glob("*.safetensors")):
                look.problem("path", f"{folder} has no .safetensors weights")


class PseudoMasksOptions(PredictorOptions):
    """Options of the source ``pseudo-masks`` (MatchMask++, step 2); paths are relative to the recipe."""

    images: str = Field(min_length=1, description="Folder of unlabelled images.")
    list: str | None = Field(
        None, min_length=1, description="Text file that names the images to use; everything when absent."
    )
    recursive: bool = Field(False, description="Look into sub-folders too.")
    gray: bool = Field(False, description="Accept 8-bit gray images and repeat their channel three times.")
    max_pixels: int = Field(
        1 << 24, gt=0, le=MAX_PIXELS, description="Largest image; logits take 4 bytes a pixel and class."
    )
    min_confidence: float | None = Field(
        None, gt=0, le=1, description="Ignore regions of a lower mean softmax probability; off by default (paper)."
    )
    min_region: int = Field(0, ge=0, description="Ignore connected regions of fewer pixels; 0 is off (paper).")
    cache: str | None = Field(
        None, min_length=1, description="Folder to keep the predicted masks in, as index PNG files to train on."
    )


class ThresholdOptions(Options):
    """Options of the labeler ``threshold``."""

    threshold: float = Field(
        0.95,
        ge=0,
        le=1,
        description="Least probability of a kept pixel (FixMatch, UniMatch: 0.95); 0 keeps everything.",
    )
    strict: bool = Field(False, description="Keep above the threshold only, not at it (UniMatch's code keeps at it).")
    target: Literal["hard", "soft"] = Field(
        "hard", description="Train towards the teacher's class (FixMatch), or towards its distribution (Mean Teacher)."
    )
    weighting: Literal["pixel", "share"] = Field(
        "pixel",
        description="Drop the pixels below the threshold (FixMatch), or keep all and weight all by the share of those "
        "that reach it (ClassMix's code); a share only matters with the normalizer 'valid'.",
    )


class CutMixOptions(Options):
    """Options of the mixer ``cutmix``; the defaults are those of UniMatch's code, for images of any shape."""

    probability: float = Field(0.5, ge=0, le=1, description="Probability that a sample gets a rectangle.")
    area: tuple[float, float] = Field((0.02, 0.4), description="Range of the rectangle's share of the image.")
    aspect: tuple[float, float] = Field((0.3, 1 / 0.3), description="Range of the rectangle's height over its width.")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name, (low, high), top in (("area", self.area, 1.0), ("aspect", self.aspect, float("inf"))):
            if not 0 < low <= high <= top or high == float("inf"):
                raise ValueError(f"{name} {[low, high]}: two numbers above 0, the smaller one first, an area at most 1")
        return self
