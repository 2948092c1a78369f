"""Online data: torch tensors. The only module that crosses between `Sample` and tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from genaug.errors import SampleError
from genaug.predictions import Predictions, SoftTargets
from genaug.types import Sample


def to_tensor(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Return image float32 ``[3, H, W]`` in ``[0, 1]`` and mask int64 ``[H, W]``.

    Raises:
        SampleError: The sample has no image or no mask.
    """
    if sample.image is None or sample.mask is None:
        raise SampleError("image or mask missing", where=f"sample {sample.id}", allowed="both")
    return image_tensor(sample.image), torch.from_numpy(sample.mask.astype(np.int64))


def image_tensor(image: np.ndarray) -> torch.Tensor:
    """Turn uint8 ``[..., H, W, 3]`` into float32 ``[..., 3, H, W]`` in ``[0, 1]``."""
    # A copy, because arrays that PIL and mirrored views give are not writable, which torch warns about.
    return torch.from_numpy(np.array(image)).movedim(-1, -3).float().div_(255)


def tensor_image(image: torch.Tensor) -> np.ndarray:
    """Turn float ``[..., 3, H, W]`` into uint8 ``[..., H, W, 3]``; values are clamped to ``[0, 1]``, then rounded."""
    scaled = image.detach().float().clamp(0, 1).mul(255).round()
    return scaled.movedim(-3, -1).to(torch.uint8).cpu().numpy()


#: The fields of a `Batch` that have one value a pixel.
PIXELS = ("targets", "weights", "valid", "provenance")


@dataclass(frozen=True, slots=True)
class Batch:
    """What mixers and labelers pass around.

    Args:
        images: float32 ``[B, 3, H, W]``.
        targets: int64 ``[B, H, W]`` class indices with the ignore index, or None before labelling.
        weights: float32 ``[B, H, W]`` loss weights, or None for ones.
        valid: bool ``[B, H, W]``, False where a pixel is padding, or None for all True.
        provenance: int64 ``[B, H, W]``: which stream a pixel came from (0 = this batch, 1 = partner), or None.
        predictions: The teacher's, of the same size, or None.
        soft: Distributions to train towards instead of `targets`, or None.
        first: Number of this batch's first sample among those of all processes; seeds the draws of its samples.
    """

    images: torch.Tensor
    targets: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    valid: torch.Tensor | None = None
    provenance: torch.Tensor | None = None
    predictions: Predictions | None = None
    soft: SoftTargets | None = None
    first: int = 0

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise SampleError(f"images of shape {tuple(self.images.shape)}", allowed="[B, 3, H, W]")
        expected = (self.images.shape[0], *self.images.shape[2:])
        for name in PIXELS:
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != expected:
                raise SampleError(f"{name} of shape {tuple(value.shape)}", allowed=str(expected))
        if self.valid is not None and self.valid.dtype != torch.bool:
            raise SampleError(f"valid of type {self.valid.dtype}", allowed="bool", hint="Use valid.bool()")
        for name, values in (
            ("predictions", self.predictions.values if self.predictions else None),
            ("soft", self.soft.log_probs if self.soft else None),
        ):
            if values is not None and (len(values), *values.shape[2:]) != expected:
                raise SampleError(f"{name} of shape {tuple(values.shape)}", allowed=f"[B, K, H, W] with {expected}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Return a batch in which every tensor ``[B, ...]`` went through `function`."""
        changed: dict[str, Any] = {"images": function(self.images)}
        changed |= {name: function(value) for name in PIXELS if (value := getattr(self, name)) is not None}
        if self.predictions is not None:
            found = {name: getattr(self.predictions, name) for name in ("image_confidence", "query_logits")}
            beside: dict[str, Any] = {name: function(value) for name, value in found.items() if value is not None}
            changed["predictions"] = replace(self.predictions.map(function), **beside)
        if self.soft is not None:
            changed["soft"] = self.soft.map(function)
        return replace(self, **changed)

    def to(self, device: torch.device | str) -> Batch:
        """Return a copy on `device`."""
        moved = self.map(lambda value: value.to(device))
        if moved.soft is None:
            return moved
        return replace(moved, soft=replace(moved.soft, offsets=moved.soft.offsets.to(device)))
