"""Online data: torch tensors. The only module that crosses between `Sample` and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from genaug.errors import SampleError
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


@dataclass(frozen=True, slots=True)
class Batch:
    """What mixers and labelers pass around.

    Args:
        images: float32 ``[B, 3, H, W]``.
        targets: int64 ``[B, H, W]`` class indices with the ignore index, or None before labelling.
        weights: float32 ``[B, H, W]`` loss weights, or None for ones.
        valid: bool ``[B, H, W]``, False where a pixel is padding, or None for all True.
        provenance: int64 ``[B, H, W]``: which stream a pixel came from (0 = this batch, 1 = partner), or None.
    """

    images: torch.Tensor
    targets: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    valid: torch.Tensor | None = None
    provenance: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise SampleError(f"images of shape {tuple(self.images.shape)}", allowed="[B, 3, H, W]")
        expected = (self.images.shape[0], *self.images.shape[2:])
        for name in ("targets", "weights", "valid", "provenance"):
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != expected:
                raise SampleError(f"{name} of shape {tuple(value.shape)}", allowed=str(expected))

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> Batch:
        """Stack samples of one size; targets are None if any sample is unlabelled."""
        images = torch.stack([image_tensor(s.image) for s in samples if s.image is not None])
        masks = [torch.from_numpy(s.mask.astype(np.int64)) for s in samples if s.mask is not None]
        return cls(images, torch.stack(masks) if len(masks) == len(samples) else None)

    def to(self, device: torch.device | str) -> Batch:
        """Return a copy on `device`."""
        moved = {
            name: value.to(device)
            for name in ("images", "targets", "weights", "valid", "provenance")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved)
