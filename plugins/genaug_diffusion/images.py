"""Sizes and resampling: images bicubic, labels never resampled but by nearest neighbour, and only on the way in."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image as PILImage
from torch.nn import functional as F

from genaug.types import Image, Mask


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
