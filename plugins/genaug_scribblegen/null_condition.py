"""What the ControlNet sees in place of a scribble: learned, and kept in a file of its own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from genaug.errors import AdapterError
from genaug.rng import Rng

log = logging.getLogger("genaug")

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
        """Go on from the values in a file, those that a ControlNet was trained with, resized by nearest neighbour.

        A warning tells where there is no such file, where it has other channels, and where it has a value per pixel and
        this one a single value, which none of those stands for: the first values stay.

        Raises:
            AdapterError: It cannot be read.
        """
        if not path.is_file():
            log.warning("%s is not there: the null condition starts from noise, not from what was learned", path)
            return
        try:
            value = load(path.read_bytes())[KEY]
        except (OSError, KeyError, SafetensorError) as error:
            raise AdapterError(
                f"damaged: cannot be read ({error})", where=str(path), hint="Put the file back"
            ) from error
        found, size = tuple(value.shape), (self.value.shape[1], self.value.shape[2])
        if len(found) != 3 or found[0] != len(self.value) or (size == (1, 1) and found[1:] != size):
            log.warning("%s has shape %s, not %s: the null condition starts from noise, not from what was learned",
                        path, found, tuple(self.value.shape))  # fmt: skip
            return
        self.value.copy_(_resized(value.float(), size))

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Return ``[1, C, h, w]``, resized by nearest neighbour."""
        return _resized(self.value, size).unsqueeze(0)


def _resized(value: Tensor, size: tuple[int, int]) -> Tensor:
    """Return values ``[C, H, W]`` at another size ``(height, width)``, by nearest neighbour."""
    return value if value.shape[1:] == size else F.interpolate(value.unsqueeze(0), size, mode="nearest")[0]


def null_size(shape: Literal["spatial", "broadcast"], resolution: int) -> tuple[int, int]:
    """Return the size of a null condition for images of one `resolution`."""
    return (resolution, resolution) if shape == "spatial" else (1, 1)
