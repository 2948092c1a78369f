"""Options of MatchMask. Light: pydantic only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from genaug.config import Options
from genaug_diffusion.config import DtypeName, TrainingOptions

if TYPE_CHECKING:
    from genaug.models import ModelCheck
    from genaug.types import SamplePart


class MatchMaskOptions(Options):
    """Options of the generator ``matchmask``; defaults are the paper's unless the description says otherwise."""

    speed_only = frozenset({"batch_size"})
    adapter_format: ClassVar[str] = "lt-adapter/1"

    base: str = Field(
        "CompVis/stable-diffusion-v1-4", description="Shipped base, folder or Hub id (Stable Diffusion 1.x/2.x)."
    )
    revision: str | None = Field(None, description="Hub branch, tag or commit of the base.")
    adapter: str | None = Field(
        None, description="Folder of a trained adapter; absent: adapt on the labelled data first."
    )
    images_per_mask: int = Field(5, ge=1, description="K (paper: 5, also 3). Relative filtering needs 3 or more.")
    batch_size: int = Field(5, ge=1, description="Images sampled at once; guidance doubles it inside the UNet.")
    preset: Literal["plms", "fast", "ddim"] = Field(
        "plms", description="plms: PNDM, 50 steps (paper); fast: DPM-Solver++ 2M Karras, 20 steps (ours)."
    )
    steps: int | None = Field(None, ge=1, description="Sampling steps; the preset's own by default.")
    guidance_scale: float = Field(2.0, ge=1, description="Classifier-free guidance s; 1 switches it off.")
    guidance_start: float = Field(
        0.0, ge=0, lt=1, description="Share of the steps before guidance sets in (ours); 0: all are guided (paper)."
    )
    start_spread: float = Field(
        0.0,
        ge=0,
        description="Spread of light and colours in the first noise, in those of the labelled images (ours); 0: plain "
        "noise (paper).",
    )
    resolution: int | None = Field(
        None, ge=8, multiple_of=8, description="Side in pixels; the base's own by default (512)."
    )
    size_mode: Literal["square", "keep_aspect"] = Field(
        "square", description="square distorts the aspect (paper); keep_aspect keeps it at the same area."
    )
    mask_downsample: Literal["nearest", "nearest-exact", "any"] = Field(
        "nearest", description="How masks reach attention resolution; 'any' never loses a small region (ours)."
    )
    overflow: Literal["drop", "chunk"] = Field(
        "drop", description="Names beyond 77 tokens: drop the smallest classes (ours), or use several chunks (ours)."
    )
    unknown_class: Literal["error", "ignore"] = Field(
        "error", description="Ids outside the class table: an error, or ignored pixels that 'genaug check' notes."
    )
    background: Literal["token", "global"] = Field(
        "token",
        description="A class called 'background': bound to its pixels by its token, or no token for it (not stated).",
    )
    skip_no_foreground: bool = Field(False, description="Make no image for masks with nothing but background.")
    rank: int = Field(4, ge=1, description="LoRA rank r; lora_alpha = r.")
    target_modules: str | None = Field(
        None, description="Regex of adapted layers, matched in full; the paper's 88 by default."
    )
    alpha_pool: Literal["token", "mean"] = Field(
        "token", description="Fusion weight per pixel (paper) or per image (ours)."
    )
    dtype: DtypeName = Field(
        "auto", description="Of the frozen base: bfloat16 on CUDA, float32 elsewhere. Adapters train in float32."
    )
    safety_checker: bool = Field(
        True, description="Use the base's safety checker if it has one; flagged images are dropped."
    )
    training: TrainingOptions = Field(default_factory=TrainingOptions, description="How the adapter is trained.")

    @property
    def condition_needs(self) -> Mapping[SamplePart, str]:
        """What an image is made from."""
        return {"mask": "Name a folder of masks as 'conditions', or leave it out for the masks of 'data'"}

    @property
    def data_needs(self) -> Mapping[SamplePart, str]:
        """What an adapter learns from, unless one is named."""
        hint = "Name both folders as 'data', or a trained adapter"
        return {} if self.adapter is not None else {"image": hint, "mask": hint}

    def check_models(self, look: ModelCheck) -> None:
        """Look for the base model and for the adapter, if one is named."""
        from genaug_diffusion.place import check_base
        from genaug_matchmask.adapter_files import FORMAT

        check_base(look, self.base)
        if self.adapter is not None:
            FORMAT.check(look, self.adapter)

    @property
    def ignores_unknown_ids(self) -> bool:
        """Whether sources may let masks with ids outside the class table through, as ignored pixels."""
        return self.unknown_class == "ignore"

    @model_validator(mode="after")
    def _batch_fits_training(self) -> MatchMaskOptions:
        micro = self.training.micro_batch_size
        if micro is not None and micro > self.training.batch_size:
            raise ValueError(
                f"training.micro_batch_size {micro} is larger than training.batch_size {self.training.batch_size}"
            )
        return self
