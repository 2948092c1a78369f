"""At which size to sample an image that is wanted at another."""

from __future__ import annotations

import math


def sampling_size(
    size: tuple[int, int], *, multiple: int = 16, resolution: int | None = None, max_pixels: int = 1 << 21
) -> tuple[int, int]:
    """Return the ``(height, width)`` to sample at; the aspect is kept up to rounding.

    Args:
        size: ``(height, width)`` that was asked for, in pixels.
        multiple: Both sides are multiples of this, the nearest ones, and at least one of it.
        resolution: Side of a square of the area to sample; None for the area asked for.
        max_pixels: Largest area, before rounding.
    """
    area = size[0] * size[1]
    wanted = min(area if resolution is None else resolution**2, max_pixels)
    scale = math.sqrt(wanted / area)
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in size)
    return height, width
