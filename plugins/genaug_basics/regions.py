"""Gates on the connected regions of a predicted mask."""

from __future__ import annotations

import importlib.util

import numpy as np
from numpy.typing import NDArray

from genaug.errors import missing_dependency
from genaug.types import Mask


def check_scikit_image(where: str) -> None:
    """Raise `MissingDependencyError` unless scikit-image, which finds the regions, is installed."""
    if importlib.util.find_spec("skimage") is None:
        raise missing_dependency("skimage", "metrics", where=where)


def ignore_regions(
    mask: Mask, confidence: NDArray[np.float32], *, min_confidence: float, min_region: int, ignore_index: int
) -> Mask:
    """Ignore the connected regions that are too small or predicted with too little confidence.

    A region is a set of pixels of one class, connected over edges or corners. Whole regions are judged rather than
    pixels, so that what remains has clean outlines and a generator can follow it.

    Args:
        mask: uint8 ``[H, W]``.
        confidence: float ``[H, W]``, probability of each pixel's class.
        min_confidence: Least mean probability of a kept region.
        min_region: Least number of pixels of a kept region.
        ignore_index: Id that means "do not train here"; such pixels belong to no region.

    Returns:
        uint8 ``[H, W]``: `mask` with more pixels set to `ignore_index`.
    """
    from skimage.measure import label

    regions = label(mask, background=ignore_index, connectivity=2).ravel()
    sizes = np.bincount(regions)
    means = np.bincount(regions, confidence.ravel()) / np.maximum(sizes, 1)
    bad = (sizes < min_region) | (means < min_confidence)
    return np.where(bad[regions].reshape(mask.shape), np.uint8(ignore_index), mask)
