"""What the ControlNet sees in place of a scribble: learned, and kept in a file of its own."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genaug.rng import Rng

KEY = "null_condition"


class NullCondition(nn.Module):
    """The null hint of scribble guidance and scribble dropout.

    A module beside the ControlNet, not a parameter inside it: `ControlNetModel.from_pretrained` would ignore that one
    with a warning.

    Args:
        channels: Of the hint.
        size: ``(height, width)`` that images are trained at; ``(1, 1)`` makes one value per channel, for any size.
        learned: Train it (paper). The released code keeps the noise it starts from.
    """

    def __init__(self, channels: int, size: tuple[int, int], *, learned: bool = True) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(channels, *size), requires_grad=learned)

    @torch.no_grad()
    def initialize(self, rng: Rng) -> None:
        """Draw standard normal values, as paper and code do."""
        self.value.copy_(torch.randn(self.value.shape, generator=rng.torch()))

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Return ``[1, C, h, w]``, resized by nearest neighbour."""
        value = self.value.unsqueeze(0)
        return value if value.shape[2:] == size else F.interpolate(value, size, mode="nearest")


def null_size(shape: Literal["spatial", "broadcast"], resolution: int) -> tuple[int, int]:
    """Return the size of a null condition for images of one `resolution`."""
    return (resolution, resolution) if shape == "spatial" else (1, 1)
