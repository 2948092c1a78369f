"""Options shared by everything that adapts or samples a diffusion model. Light: pydantic only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from genaug.config import Options

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]


class TrainingOptions(Options):
    """Hyper-parameters of an adapter training."""

    speed_only = frozenset({"micro_batch_size", "gradient_checkpointing", "checkpoint_every", "preview_images"})

    steps: int = Field(100_000, ge=1, description="Optimiser steps (MatchMask: 100k).")
    batch_size: int = Field(4, ge=1, description="Images per step over all processes (MatchMask: 4).")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Images per forward pass; all of a process's by default."
    )
    learning_rate: float = Field(
        4e-5,
        gt=0,
        description="AdamW. MatchMask: 4e-5; 1.6e-4 if multiplied by the batch as in its base's code.",
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW's default; not stated in the paper.")
    flip_probability: float = Field(
        0.5, ge=0, le=1, description="Left-right flips (as the layout scheme's released code)."
    )
    max_grad_norm: float | None = Field(None, gt=0, description="Gradient clipping; off by default, not stated.")
    gradient_checkpointing: bool = Field(False, description="Trade time for memory; the gradients are the same.")
    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints, curves and previews.")
    preview_images: int = Field(3, ge=0, description="Images in each preview picture; 0 makes none.")
    holdout: float = Field(0.0, ge=0, lt=1, description="Share of the labelled samples kept out for the held-out loss.")
    validate_every: int = Field(500, ge=1, description="Steps between held-out losses; the best weights are kept.")
    patience: int | None = Field(None, ge=1, description="Stop after so many held-out losses without a new best.")

    def learning_rate_at(self, step: int) -> float:  # noqa: ARG002  (methods with a schedule override it)
        """Return the learning rate of a step, counted from 0."""
        return self.learning_rate

    @property
    def depends_on_steps(self) -> bool:
        """Whether a step would differ if there were more of them; then a longer training starts over."""
        return False
