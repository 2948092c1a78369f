"""What the ControlNet sees in place of a scribble: learned, and kept in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from genaug.errors import AdapterError
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

    @torch.no_grad()
    def take(self, path: Path) -> None:
        """Go on from the values in a file, if it is there and of this shape: those that a ControlNet was trained with.

        Raises:
            AdapterError: It cannot be read.
        """
        if not path.is_file():
            return
        try:
            value = load(path.read_bytes())[KEY]
        except (OSError, KeyError, SafetensorError) as error:
            raise AdapterError(
                f"damaged: cannot be read ({error})", where=str(path), hint="Put the file back"
            ) from error
        if value.shape == self.value.shape:
            self.value.copy_(value)

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Return ``[1, C, h, w]``, resized by nearest neighbour."""
        value = self.value.unsqueeze(0)
        return value if value.shape[2:] == size else F.interpolate(value, size, mode="nearest")


def null_size(shape: Literal["spatial", "broadcast"], resolution: int) -> tuple[int, int]:
    """Return the size of a null condition for images of one `resolution`."""
    return (resolution, resolution) if shape == "spatial" else (1, 1)
