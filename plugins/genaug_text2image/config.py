"""Options of the prompt sources and of the generator ``text2image``. Light: pydantic only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from genaug.config import Options
from genaug_diffusion.config import DtypeName

if TYPE_CHECKING:
    from genaug.models import ModelCheck
    from genaug.types import SamplePart

#: Sentences for dense scenes, one drawn for every prompt (ours).
TEMPLATES = (
    "A sharp, detailed photograph of a crowded scene with {classes}, many objects near and far.",
    "A realistic wide-angle photograph that shows {classes} together, objects of many sizes overlapping.",
    "A high-resolution photo of a busy place with {classes}, everything in focus, natural light.",
)

#: What a vision-language model is asked (ours; SENSE asks for all visible objects, attributes, positions and groups).
INSTRUCTION = (
    "Write one prompt for a text-to-image model that would draw a scene like this photograph. Go through everything "
    "you can see and use these words for it where they fit: {classes}. For each say how many there are, what they look "
    "like, where they are in the picture and what stands together. Mention light, weather and the point of view. "
    "Answer with the prompt alone, in plain sentences, at most 120 words."
)


class PromptOptions(Options):
    """What all prompt sources have in common."""

    source: dict[str, Any] | None = Field(
        None, description="Another source, {format: folder, images: ..., ...}; the recipe's 'data' by default."
    )

    @field_validator("source")
    @classmethod
    def _names_one(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        value = {"format": "folder", **value}
        if not isinstance(value["format"], str):
            raise ValueError("a table of a source's options, with its name as 'format'")
        return value


class PromptFileOptions(PromptOptions):
    """Options of the source ``prompts``; paths are relative to the recipe."""

    path: str = Field(min_length=1, description="JSON Lines file with the keys 'file_name' and 'text' (SENSE).")
    size: tuple[int, int] | None = Field(
        None,
        description="[height, width] of all images; by default each has that of the image of its name in 'source'.",
    )

    @field_validator("size")
    @classmethod
    def _pixels(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        return _checked_size(value)


class ClassPromptsOptions(PromptOptions):
    """Options of the source ``class-prompts`` (ours)."""

    count: int | None = Field(None, ge=1, description="Number of prompts; as many as masks by default.")
    dense: float = Field(
        0.75,
        ge=0,
        le=1,
        description="A prompt names at least as many classes as this quantile of the masks; 0 adds none.",
    )
    min_share: float = Field(
        0.001, ge=0, lt=1, description="A mask shows a class that covers more than this share of its labelled pixels."
    )
    exclude: tuple[str, ...] = Field(("background",), description="Class names that are left out of prompts.")
    names: dict[str, str] = Field(
        default_factory=dict, description="Class name -> how prompts call it; underscores become spaces by default."
    )
    templates: tuple[str, ...] = Field(
        TEMPLATES, min_length=1, description="Sentences with {classes}, one drawn for every prompt."
    )
    separator: str = Field(", ", description="Between class names.")
    last_separator: str | None = Field(" and ", description="Before the last one; null for the same everywhere.")
    order: Literal["id", "random"] = Field("random", description="Order of the class names in a prompt.")
    size: tuple[int, int] | None = Field(
        None, description="[height, width] of all images; by default that of the mask a prompt began with."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the draws; each prompt has a stream of its own.")

    @field_validator("templates")
    @classmethod
    def _hold_classes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for template in value:
            if template.count("{classes}") != 1:
                raise ValueError(f"{template!r}: write {{classes}} once, where the class names belong")
        return value

    @field_validator("size")
    @classmethod
    def _pixels(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        return _checked_size(value)


class CaptionOptions(PromptOptions):
    """Options of the source ``captions``; paths are relative to the recipe."""

    model: str = Field(
        min_length=1, description="Folder or Hub id of a transformers image-text-to-text model (SENSE: Gemma 3 27B)."
    )
    revision: str | None = Field(None, description="Hub branch, tag or commit of the model.")
    file: str = Field(
        "captions.jsonl", min_length=1, description="Captions are kept here, and can be edited; JSON Lines."
    )
    instruction: str = Field(
        INSTRUCTION, min_length=1, description="What the model is asked; {classes} stands for the class names (ours)."
    )
    max_new_tokens: int = Field(256, ge=1, description="Longest caption in tokens (ours).")
    max_side: int | None = Field(
        None, ge=16, description="Images are reduced to this longest side before they are shown to the model."
    )
    dtype: DtypeName = Field("auto", description="Of the model: bfloat16 on CUDA, float32 elsewhere.")

    def check_models(self, look: ModelCheck) -> None:
        """Look for the model's folder; a Hub id cannot be checked."""
        check_folder(look, "model", self.model, "config.json", "a folder of save_pretrained, or org/name on the Hub")


class Text2ImageOptions(Options):
    """Options of the generator ``text2image``."""

    speed_only = frozenset({"batch_size", "cpu_offload"})

    base: str = Field(
        "black-forest-labs/FLUX.1-dev",
        description="Shipped base, folder or Hub id of a diffusers text-to-image model (SENSE: Flux).",
    )
    revision: str | None = Field(None, description="Hub branch, tag or commit of the base.")
    images_per_prompt: int = Field(1, ge=1, description="K (SENSE: one for each of two bases).")
    batch_size: int = Field(1, ge=1, description="Images sampled at once.")
    steps: int | None = Field(
        None, ge=1, description="Sampling steps; the pipeline's own by default (Flux 28; 4 if distilled for it)."
    )
    guidance_scale: float | None = Field(
        None, ge=0, description="Guidance; the pipeline's own by default (Flux 3.5; 0 if distilled without)."
    )
    negative_prompt: str | None = Field(None, description="What images should not show, where a pipeline takes it.")
    max_sequence_length: int | None = Field(
        None, ge=1, description="Tokens of T5-like encoders; the pipeline's own by default (Flux 512, schnell 256)."
    )
    resolution: int | None = Field(
        None,
        ge=16,
        description="Sample at the area of a square of this side; by default the base's own (Stable Diffusion 512), or "
        "at the area asked for where it has none (Flux).",
    )
    max_pixels: int = Field(1 << 21, ge=256, description="Largest area that is sampled, aspect kept (2 MP: ours).")
    multiple: int = Field(
        16, ge=1, description="Both sides are rounded to a multiple of this, then images are resized (Flux: 16)."
    )
    dtype: DtypeName = Field("auto", description="Of the base: bfloat16 on CUDA, float32 elsewhere.")
    safety_checker: bool = Field(True, description="Use the base's safety checker, if any; flagged images are dropped.")
    watermark: bool = Field(
        False, description="Invisible watermark, where a pipeline has one (SDXL); images are marked in their metadata."
    )
    cpu_offload: bool = Field(False, description="Keep parts of the base on the CPU until they are used (CUDA only).")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.resolution is not None and self.resolution**2 > self.max_pixels:
            raise ValueError(f"resolution {self.resolution} is more than max_pixels {self.max_pixels} allow")
        return self

    @property
    def condition_needs(self) -> Mapping[SamplePart, str]:
        """What an image is made from."""
        return {"prompt": "Name a source of prompts as 'conditions', e.g. {format: class-prompts}"}

    def check_models(self, look: ModelCheck) -> None:
        """Look for the base model."""
        if self.base not in look.registry.names("base"):
            allowed = "a folder of a diffusers text-to-image model, org/name on the Hub, or a shipped base"
            check_folder(look, "base", self.base, "model_index.json", allowed)


def check_folder(look: ModelCheck, key: str, value: str, file: str, allowed: str) -> None:
    """Report a model folder that lacks `file`, or a name that is neither a folder nor of a Hub id's form."""
    folder = look.path(value)
    if folder.exists():
        look.folder(key, value, [file], allowed=allowed)
    elif value.count("/") != 1 or value.startswith((".", "/", "~")):
        look.problem(key, f"{folder} does not exist", allowed=allowed)
    else:
        look.note(key, f"{value!r} is no folder, so it is a Hub id; whether the Hub has it is not checked")


def _checked_size(value: tuple[int, int] | None) -> tuple[int, int] | None:
    if value is not None and min(value) < 1:
        raise ValueError(f"{list(value)}: height and width in pixels, at least 1")
    return value
