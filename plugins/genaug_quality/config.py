"""Options of the sections and filters of quality. Light: pydantic only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from genaug.config import Options
from genaug_basics.config import FilterOptions

if TYPE_CHECKING:
    from genaug.models import ModelCheck
    from genaug.types import SamplePart

#: What to do where the real samples have no figure to take a percentile of.
_OR = "Give a threshold instead of a percentile"


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
    labeler: dict[str, Any] | None = Field(
        None,
        description="Component that makes the pseudo-labels instead, {use: sense, ...}, of one image at a time and of "
        "the predictor's plain answer: its scales and flips are left out (ours). By default, pixels of at least "
        "`threshold` get the class that the predictor sees.",
    )
    min_area: float = Field(0.0005, ge=0, le=1, description="As of the section density.")

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if self.labeler is not None and "threshold" in self.model_fields_set:
            raise ValueError("threshold: give it to the labeler, e.g. labeler.threshold=0.9")
        return self


class AgainstRealOptions(Options):
    """Options of the filters whose threshold is a percentile of the real samples' figures."""

    percentile: float = Field(
        5.0,
        ge=0,
        le=100,
        description="Drop what is worse than this percentile of the real samples, counted from the worse side (ours).",
    )
    threshold: float | None = Field(None, description="A number to use instead of the percentile.")


class DensityFilterOptions(AgainstRealOptions):
    """Options of the filter ``density``."""

    measure: Literal["components", "classes", "area_entropy"] = Field(
        "components", description="Regions of a mask, its classes, or the entropy of their areas."
    )
    predictor: str | dict[str, Any] | None = Field(
        None,
        description="Count in what this segmenter sees, of real and generated images alike; by default in the masks.",
    )
    min_area: float = Field(0.0005, ge=0, le=1, description="As of the section density.")
    batch_size: int = Field(8, ge=1, description="Images per forward pass of the predictor.")

    @property
    def judges_unlabeled(self) -> bool:
        """Whether it can judge samples without masks."""
        return self.predictor is not None

    @property
    def data_needs(self) -> Mapping[SamplePart, str]:
        """What of the labelled samples it takes the percentile of."""
        return {} if self.threshold is not None else {"mask": _OR} if self.predictor is None else {"image": _OR}

    def check_models(self, look: ModelCheck) -> None:
        """Look for the segmenter, if there is one."""
        if self.predictor is not None:
            look.predictor("predictor", self.predictor)


class FidelityFilterOptions(AgainstRealOptions):
    """Options of the filter ``fidelity``."""

    measure: Literal["glcm_score", "glcm_joint_entropy", "compression_ratio", "noise"] = Field(
        "glcm_joint_entropy",
        description="Too low is worse of both entropies, too high of compression ratio and noise.",
    )
    side: int | None = Field(
        None, ge=1, description="Short side that images are brought to; by default the smallest of the real ones."
    )

    @property
    def judges_unlabeled(self) -> bool:
        """Whether it can judge samples without masks."""
        return True

    @property
    def data_needs(self) -> Mapping[SamplePart, str]:
        """What of the labelled samples it takes the percentile of."""
        return {} if self.threshold is not None else {"image": _OR}


class DuplicateFilterOptions(Options):
    """Options of the filter ``duplicate``."""

    percentile: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Near is what only this percentage of the real images are to their nearest other one (ours).",
    )
    radius: int | None = Field(None, ge=0, le=64, description="Bits, of 64, to use instead of the percentile.")

    @property
    def judges_unlabeled(self) -> bool:
        """Whether it can judge samples without masks."""
        return True

    @property
    def data_needs(self) -> Mapping[SamplePart, str]:
        """What of the labelled samples it takes the percentile of."""
        return {} if self.radius is not None else {"image": "Give a radius instead"}


class AgreementFilterOptions(FilterOptions, AgainstRealOptions):
    """Options of the filter ``agreement``."""

    @property
    def judges_unlabeled(self) -> bool:
        """Whether it can judge samples without masks."""
        return False

    @property
    def data_needs(self) -> Mapping[SamplePart, str]:
        """What of the labelled samples it takes the percentile of."""
        return {} if self.threshold is not None else {"image": _OR, "mask": _OR}


class ClassBalancedOptions(Options):
    """Options of the filter ``class-balanced``."""

    count: int = Field(ge=1, description="Number of samples to keep.")

    @property
    def judges_unlabeled(self) -> bool:
        """Whether it can judge samples without masks."""
        return False


class InstancesOptions(Options):
    """Options of the section ``instances``."""

    model: str = Field(
        min_length=1, description="GroundingDINO: a folder of save_pretrained, or a Hub id such as IDEA-Research/..."
    )
    prompt: str | None = Field(
        None, min_length=1, description="What to look for, words that end with full stops; by default the class names."
    )
    threshold: float = Field(
        0.35, gt=0, lt=1, description="Least score of a detection; SENSE's is not published (0.35 is GroundingDINO's)."
    )


class FeaturesOptions(Options):
    """Options of the section ``features``."""

    model: str = Field(
        min_length=1, description="An image encoder of transformers (DINOv2, CLIP ...): a folder or a Hub id."
    )
    batch_size: int = Field(16, ge=1, description="Images per forward pass.")


class ClipOptions(Options):
    """Options of the section ``clip``."""

    model: str = Field(min_length=1, description="A CLIP model of transformers: a folder or a Hub id.")
    prompt_key: str = Field("prompt", description="Where an image's meta has its text.")
    template: str = Field(
        "a photo of {classes}",
        min_length=1,
        description="Text of images without one; {classes} are the names of the classes in the mask.",
    )
