"""Options of ScribbleGen. Light: pydantic only. Sources: P paper, C released code, ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from genaug.config import Options
from genaug_diffusion.config import DtypeName, TrainingOptions

if TYPE_CHECKING:
    from genaug.models import ModelCheck
    from genaug.types import SamplePart

Ratio = Annotated[float, Field(le=1)]

#: What the released run scripts switch through, ten epochs each.
ADAPTIVE_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class ScribbleTrainingOptions(TrainingOptions):
    """Hyper-parameters of the ControlNet's training."""

    steps: int = Field(132_400, ge=1, description="Optimiser steps (P: 200 epochs of 10,582 images, 16 at a time).")
    batch_size: int = Field(16, ge=1, description="Images per step over all processes (P, C).")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW (P, C).")
    schedule: Literal["constant", "linear"] = Field(
        "constant", description="Of the learning rate: constant (C), or linear to zero (P)."
    )
    flip_probability: float = Field(0.0, ge=0, le=1, description="Left-right flips (P, C: no augmentation).")
    scribble_dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of the rows whose scribble is replaced by the null condition (P, C)."
    )
    hint_init: Literal["plain", "scaled"] = Field(
        "plain",
        description="First weights of the hint encoder: diffusers' own (P, C), or scaled to the labelled hints so that "
        "a short training follows the scribble (ours).",
    )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.learning_rate * (1 - step / self.steps if self.schedule == "linear" else 1)

    @property
    def depends_on_steps(self) -> bool:
        """Whether a step would differ if there were more of them."""
        return self.schedule == "linear"


class ScribbleGenOptions(Options):
    """Options of the generator ``scribblegen``."""

    speed_only = frozenset({"batch_size"})
    adapter_format: ClassVar[str] = "scribblegen/1"

    base: str = Field(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        description="Shipped base, folder or Hub id, Stable Diffusion 1.x/2.x (P: 1.5).",
    )
    revision: str | None = Field(None, description="Hub branch, tag or commit of the base.")
    controlnet: str | None = Field(
        None,
        description="ControlNet to start adapting from, for users with few scribbles (ours): a folder, a shipped base "
        "that has one, or a Hub id; absent: a copy of the base's UNet (P, C).",
    )
    adapter: str | None = Field(
        None, description="Folder of a trained adapter; absent: adapt on the labelled data first."
    )
    encode_ratio: Ratio | tuple[Ratio, ...] = Field(
        ADAPTIVE_LEVELS,
        description="Share of the noise put on the real image, above 0 (its reconstruction) up to 1 (noise alone). One "
        "number, or ascending levels that each get images (C: the adaptive schedule's).",
    )
    images_per_scribble: int = Field(1, ge=1, description="Images per scribble and encode ratio (P, C: 1).")
    batch_size: int = Field(4, ge=1, description="Images sampled at once; guidance doubles it inside the UNet.")
    steps: int = Field(50, ge=1, description="DDIM steps, whatever the encode ratio (C).")
    steps_mode: Literal["fixed", "scaled"] = Field(
        "fixed", description="fixed: `steps` at every encode ratio (P, C); scaled: in proportion to it (ours, faster)."
    )
    grid: Literal["paper", "released"] = Field(
        "paper", description="Timesteps: those of Algorithm 1 (P), or of the released code (C)."
    )
    leak_at_one: bool = Field(
        False, description="At encode ratio 1 start from the noised image (C) instead of noise alone (P)."
    )
    guidance_scale: float = Field(
        2.0, ge=1, description="Scribble guidance s = 1 + w; 1 switches it off (C: 2; P says w = 2, which is s = 3)."
    )
    hint: Literal["rgb", "onehot"] = Field(
        "rgb", description="What the ControlNet sees: a colour per class (P), or a channel per class (P: FID worse)."
    )
    null_learned: bool = Field(True, description="Learn the null condition (P); false: keep its first values (C).")
    null_shape: Literal["spatial", "broadcast"] = Field(
        "spatial", description="Null condition: one value per pixel (P, C), or one per channel for any size (ours)."
    )
    prompt: str = Field(
        "a high-quality, detailed, and professional image", min_length=1, description="Start of every prompt (P, C)."
    )
    class_names: bool = Field(
        True, description="Go on with ' of ' and the names of the scribbled classes (P: FID worse, mIoU better)."
    )
    resolution: int | None = Field(
        None, ge=8, multiple_of=8, description="Side in pixels; the base's own by default (P: 512)."
    )
    size_mode: Literal["square", "keep_aspect"] = Field(
        "square", description="square distorts the aspect (P, C); keep_aspect keeps it at the same area (ours)."
    )
    unknown_class: Literal["error", "ignore"] = Field(
        "error", description="Ids outside the class table: an error, or ignored pixels that 'genaug check' notes."
    )
    skip_unlabelled: bool = Field(True, description="Make no image where nothing is scribbled (ours).")
    dtype: DtypeName = Field(
        "auto", description="Of the frozen base: bfloat16 on CUDA, float32 elsewhere. ControlNets train in float32."
    )
    safety_checker: bool = Field(
        True, description="Use the base's safety checker if it has one; flagged images are dropped."
    )
    training: ScribbleTrainingOptions = Field(
        default_factory=ScribbleTrainingOptions, description="How the ControlNet is trained."
    )

    @property
    def levels(self) -> tuple[float, ...]:
        """The encode ratios, ascending."""
        return self.encode_ratio if isinstance(self.encode_ratio, tuple) else (self.encode_ratio,)

    @property
    def condition_needs(self) -> Mapping[SamplePart, str]:
        """What an image is made from: below encode ratio 1, and where it leaks, the real image too."""
        mask = "Name scribbles as 'conditions', or leave it out for those of 'data'"
        if self.leak_at_one or min(self.levels) < 1:
            return {"image": "Name the folder of their images too, or set generator.encode_ratio=1.0", "mask": mask}
        return {"mask": mask}

    @property
    def data_needs(self) -> Mapping[SamplePart, str]:
        """What an adapter learns from, unless one is named."""
        hint = "Name both folders as 'data', or a trained adapter"
        return {} if self.adapter is not None else {"image": hint, "mask": hint}

    @property
    def ignores_unknown_ids(self) -> bool:
        """Whether sources may let masks with ids outside the class table through, as ignored pixels."""
        return self.unknown_class == "ignore"

    def check_models(self, look: ModelCheck) -> None:
        """Look for the base model and for the adapter, if one is named."""
        from genaug_diffusion.place import check_base
        from genaug_scribblegen.adapter_files import FORMAT
        from genaug_scribblegen.place import check_controlnet

        check_base(look, self.base)
        if self.controlnet is not None:
            check_controlnet(look, self.controlnet)
        if self.adapter is not None:
            FORMAT.check(look, self.adapter)

    def mask_size(self, look: ModelCheck) -> Callable[[tuple[int, int]], tuple[int, int]] | None:
        """Return the size of the images to make, at which scribbles become hints; None, noted, if that is not known."""
        from genaug_diffusion.place import base_resolution
        from genaug_diffusion.sizes import generation_size

        resolution = self.resolution or base_resolution(look, self.base, self.revision)
        if resolution is None:
            look.note("resolution", "left to the base, which is not here: strokes too thin for it are not looked for")
            return None
        return partial(generation_size, resolution=resolution, mode=self.size_mode)

    @field_validator("encode_ratio")
    @classmethod
    def _levels_ascend(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        levels = value if isinstance(value, tuple) else (value,)
        if not levels:
            raise ValueError("no encode ratio")
        if min(levels) <= 0:
            raise ValueError("an encode ratio of 0 or less: 0 would only reconstruct the real image")
        if any(later <= earlier for earlier, later in itertools.pairwise(levels)):
            raise ValueError("the encode ratios do not ascend")
        return value

    @model_validator(mode="after")
    def _options_agree(self) -> ScribbleGenOptions:
        training = self.training
        if training.micro_batch_size is not None and training.micro_batch_size > training.batch_size:
            raise ValueError(
                f"training.micro_batch_size {training.micro_batch_size} is larger than "
                f"training.batch_size {training.batch_size}"
            )
        if self.leak_at_one and max(self.levels) < 1:
            raise ValueError("leak_at_one says what happens at encode ratio 1, which encode_ratio does not have")
        if self.controlnet is not None and self.adapter is not None:
            raise ValueError("controlnet says what to start adapting from, but with an adapter nothing is adapted")
        if self.controlnet is not None and training.hint_init == "scaled":
            raise ValueError("training.hint_init 'scaled' would change what the named controlnet has learned")
        if self.null_learned and training.scribble_dropout == 0:
            raise ValueError(
                "null_learned needs training.scribble_dropout above 0: nothing else teaches the null condition"
            )
        return self
