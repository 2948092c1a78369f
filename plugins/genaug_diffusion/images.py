"""Sizes and resampling: images bicubic, labels never resampled but by nearest neighbour, and only on the way in."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from PIL import Image as PILImage
from torch.nn import functional as F

from genaug.types import Image, Mask

SizeMode = Literal["square", "keep_aspect"]

#: diffusers' pipelines accept heights and widths that are multiples of this.
MULTIPLE = 8


def generation_size(size: tuple[int, int], resolution: int, mode: SizeMode) -> tuple[int, int]:
    """Return the ``(height, width)`` to generate at for a mask of `size`.

    Args:
        size: ``(height, width)`` of the mask in pixels.
        resolution: Side of the square, a multiple of 8.
        mode: ``square`` distorts the aspect, as the paper does; ``keep_aspect`` keeps the area of the square and the
            aspect of the mask, each side rounded to a multiple of 8.
    """
    if mode == "square":
        return resolution, resolution
    scale = resolution / math.sqrt(size[0] * size[1])
    height, width = (max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in size)
    return height, width


def resize_image(image: Image, size: tuple[int, int]) -> Image:
    """Resize uint8 ``[H, W, 3]`` to ``(height, width)``, bicubic with antialiasing; unchanged at equal size."""
    if image.shape[:2] == size:
        return image
    resized = PILImage.fromarray(image).resize((size[1], size[0]), PILImage.Resampling.BICUBIC)
    return np.asarray(resized)


def to_model_range(images: torch.Tensor) -> torch.Tensor:
    """Map ``[0, 1]`` to ``[-1, 1]``, what the autoencoder takes."""
    return images.mul(2).sub(1)


def resize_mask(mask: Mask, size: tuple[int, int]) -> torch.Tensor:
    """Resize uint8 ``[H, W]`` to ``size`` by nearest neighbour."""
    tensor = torch.from_numpy(np.array(mask))  # a copy: torch warns of arrays that cannot be written
    return tensor if mask.shape == size else F.interpolate(tensor[None, None], size, mode="nearest")[0, 0]
