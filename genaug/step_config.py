"""The part of a recipe that works inside a training loop: teacher, labeler, terms. Light: pydantic only."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from genaug.component_config import ComponentConfig

#: Who changes images: the first library that is installed, a certain one, our own torch operations, or nobody.
Library = Literal["auto", "albumentations", "torchvision", "kornia", "builtin", "none"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class TeacherConfig(_Part):
    """The model that labels: a running average of the one that is trained."""

    ema: float = Field(0.999, ge=0, le=1, description="Decay of the average; 0 copies the student every step, 1 never.")
    ramp: bool = Field(True, description="Start with min(1 - 1 / (step + 1), ema), so that the first weights fade.")


class SetLossConfig(_Part):
    """The loss of masks matched with queries; the defaults are SENSE's for unlabelled images."""

    class_weight: float = Field(2.0, ge=0, description="Factor of the queries' class cross-entropy.")
    mask_weight: float = Field(5.0, ge=0, description="Factor of the masks' binary cross-entropy.")
    dice_weight: float = Field(0.0, ge=0, description="Factor of the masks' dice loss.")
    no_object: float = Field(0.02, ge=0, description="Weight of queries without a mask in the class cross-entropy.")
    cost_class: float = Field(1.0, ge=0, description="Matching: factor of minus the probability of the class.")
    cost_mask: float = Field(1.0, ge=0, description="Matching: factor of the binary cross-entropy.")
    cost_dice: float = Field(0.0, ge=0, description="Matching: factor of the dice loss.")
    points: int = Field(12544, ge=1, description="Points at which masks are compared.")
    oversample: float = Field(3.0, ge=1, description="Candidates for the unsure points, as a multiple of 'points'.")
    importance: float = Field(
        0.75, ge=0, le=1, description="Share of a loss's points that are the candidates its mask is least sure of."
    )
    conf_mask: Literal["intended", "as_released"] = Field(
        "intended",
        description="Pixels that are not kept count in no mask, or are negatives of every mask (what SENSE's released "
        "code does, and Mask2Former with ignored pixels).",
    )


class LabelledSetLossConfig(SetLossConfig):
    """The same with Mask2Former's own weights, for labelled images."""

    dice_weight: float = Field(5.0, ge=0, description="Factor of the masks' dice loss.")
    no_object: float = Field(0.1, ge=0, description="Weight of queries without a mask in the class cross-entropy.")
    cost_class: float = Field(2.0, ge=0, description="Matching: factor of minus the probability of the class.")
    cost_mask: float = Field(5.0, ge=0, description="Matching: factor of the binary cross-entropy.")
    cost_dice: float = Field(5.0, ge=0, description="Matching: factor of the dice loss.")


class SupervisedConfig(_Part):
    """The loss on labelled images."""

    weight: float = Field(1.0, ge=0, description="Factor of the labelled loss.")
    loss: Literal["cross-entropy", "ohem", "set"] = Field(
        "cross-entropy",
        description="Cross-entropy over all labelled pixels, over the hard ones only, or masks matched with queries "
        "(kind 'queries' only).",
    )
    set_loss: LabelledSetLossConfig = Field(LabelledSetLossConfig(), description="Options of the loss 'set'.")
    ohem_threshold: float = Field(0.7, gt=0, le=1, description="Hard: the true class is less probable than this.")
    ohem_min_kept: int = Field(100_000, ge=1, description="Keep at least so many of the hardest pixels of a batch.")
    burn_in: int = Field(0, ge=0, description="Steps on labelled images alone, before any term counts.")


class ViewsConfig(_Part):
    """How the weak view is made from the loader's image, and the strong one from the weak."""

    weak: Library = Field(
        "none",
        description="Random scale, padding, crop and flip of labelled and unlabelled images, and the library that "
        "resamples them; 'none' when the loader has done it.",
    )
    scale: tuple[float, float] = Field(
        (0.5, 2.0), description="Weak: smallest and largest factor of both sides (SENSE, UniMatch)."
    )
    crop: int | tuple[int, int] | None = Field(
        None, description="Weak: side, or height and width, of the crop in pixels; the loader's size when absent."
    )
    flip: float = Field(0.5, ge=0, le=1, description="Weak: probability of a horizontal flip.")
    strong: Library = Field(
        "auto",
        description="Library for the photometric changes. 'auto' takes the first that is installed of albumentations "
        "(images on the CPU only), torchvision and kornia, else our own.",
    )
    jitter: float = Field(0.8, ge=0, le=1, description="Probability of colour jitter (all papers here).")
    gray: float = Field(0.2, ge=0, le=1, description="Probability of a gray image.")
    blur: float = Field(0.5, ge=0, le=1, description="Probability of Gaussian blur, sigma 0.1 to 2 pixels.")
    brightness: float = Field(0.5, ge=0, description="Range of the brightness factor, 1 - x to 1 + x.")
    contrast: float = Field(0.5, ge=0, description="Range of the contrast factor.")
    saturation: float = Field(0.5, ge=0, description="Range of the saturation factor.")
    hue: float = Field(0.25, ge=0, le=0.5, description="Range of the hue shift, in turns.")

    @field_validator("scale")
    @classmethod
    def _range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 10:
            raise ValueError("two numbers above 0 and at most 10, the smaller one first")
        return value

    @field_validator("crop")
    @classmethod
    def _sides(cls, value: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
        if value is not None and min(value if isinstance(value, tuple) else (value,)) < 1:
            raise ValueError("sides of at least 1 pixel")
        return value


class TermConfig(_Part):
    """One loss on unlabelled images."""

    name: str | None = Field(None, description="Name in the figures; 'term<number>' by default.")
    view: Literal["weak", "strong"] = Field("strong", description="Which view of the images the student sees.")
    mixer: ComponentConfig | None = Field(None, description="Mixes images and labels; nothing is mixed when absent.")
    order: Literal["label-then-mix", "mix-then-label"] = Field(
        "label-then-mix", description="Label the teacher's predictions, then mix; or mix them (SENSE), then label."
    )
    mix_at: Literal["strong", "weak"] = Field(
        "strong", description="Mix strong views (FixMatch, UniMatch), or weak ones and then make them strong (UPC)."
    )
    loss: Literal["pixel", "set"] = Field(
        "pixel",
        description="Cross-entropy pixel by pixel, or masks matched with queries (kind 'queries' and hard targets).",
    )
    set_loss: SetLossConfig = Field(SetLossConfig(), description="Options of the loss 'set'.")
    normalizer: Literal["kept", "valid", "per_image_kept"] = Field(
        "valid",
        description="Loss 'pixel': divide the weighted loss by the kept weight (SENSE), by the number of valid pixels "
        "(UniMatch), or by the kept weight of each image and then average over images (MaskMatch).",
    )
    weight: float = Field(1.0, ge=0, description="Factor of this loss.")
    scales: tuple[float, ...] = Field((1.0,), description="Scales at which the student sees the images (MaskMatch).")
    batch_norm: Literal["update", "hold"] = Field(
        "update",
        description="Whether the student's passes of this term move the running averages of BatchNorm (the papers), or "
        "leave them as they are: masked and mixed images are not what a model is evaluated on (ours).",
    )
    multiple_of: int | None = Field(
        None,
        ge=1,
        description="Round scaled sizes to multiples of this, e.g. a ViT's patch size; by default as the labeler does.",
    )

    @field_validator("scales")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(not 0 < scale <= 4 for scale in value):
            raise ValueError("one or more numbers above 0 and at most 4")
        return value
