from __future__ import annotations

import torch
import torch.nn.functional as F


class ImageList:
    def __init__(self, tensor: torch.Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor, self.image_sizes = tensor, image_sizes

    @staticmethod
    def from_tensors(
        tensors: list[torch.Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> ImageList:
        """Pad at the right and below to the largest size, rounded up to what the model divides."""
        sizes = [(int(t.shape[-2]), int(t.shape[-1])) for t in tensors]
        divisor = max(size_divisibility, 1)
        height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*sizes, strict=True))
        padded = [F.pad(t, (0, width - t.shape[-1], 0, height - t.shape[-2]), value=pad_value) for t in tensors]
        return ImageList(torch.stack(padded), sizes)
