"""What happens to an image happens to its uncertainty map: resize, crop, flip. Arrays, for dataset code."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from genaug.errors import SampleError

Map = NDArray[np.float32]


def resize_map(uncertainty: Map, size: tuple[int, int]) -> Map:
    """Resize float ``[H, W]`` bilinearly to ``(height, width)``; values stay within those of the map."""
    _check(uncertainty)
    if min(size) < 1:
        raise SampleError(f"size {tuple(size)}", where="resize_map", allowed="at least one pixel")
    if uncertainty.shape == tuple(size):
        return uncertainty.astype(np.float32)
    values = torch.from_numpy(uncertainty.astype(np.float32))
    resized = F.interpolate(values[None, None], size=tuple(size), mode="bilinear", align_corners=False)[0, 0]
    clipped: Map = resized.clamp(values.min(), values.max()).numpy()  # rounding goes beyond by a bit
    return clipped


def crop_map(uncertainty: Map, top: int, left: int, size: tuple[int, int]) -> Map:
    """Cut ``(height, width)`` pixels out of float ``[H, W]``.

    Args:
        uncertainty: The map.
        top: First row; negative, or a crop that ends beyond the map, is padding.
        left: First column.
        size: Size of the crop. Padding is 0: nothing is to be learned there, so nothing is uncertain.
    """
    _check(uncertainty)
    height, width = size
    if min(size) < 1:
        raise SampleError(f"size {tuple(size)}", where="crop_map", allowed="at least one pixel")
    result = np.zeros((height, width), np.float32)
    inside = uncertainty[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    if inside.size:
        row, column = max(-top, 0), max(-left, 0)
        result[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return result


def flip_map(uncertainty: Map) -> Map:
    """Mirror float ``[H, W]`` left to right."""
    _check(uncertainty)
    return np.ascontiguousarray(uncertainty[:, ::-1], np.float32)


def _check(uncertainty: Map) -> None:
    if uncertainty.ndim != 2 or not uncertainty.size:
        raise SampleError(f"an uncertainty map of shape {uncertainty.shape}", allowed="[H, W]")
