"""Sizes of the images to make. Light: no torch."""

from __future__ import annotations

import math
from typing import Literal

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
