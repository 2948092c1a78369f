"""Grey-level co-occurrence of image patches, counted for all patches of an image at once.

The figures are those of Diffusion-4K's released ``eval.py``, by the authors of SENSE: grey (Rec. 601) divided by 4,
which leaves 64 levels; non-overlapping patches of 64x64, what is left at the right and below unused; distances 1 to 4
at 0, 45, 90 and 135 degrees, one direction only; every matrix divided by its sum.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

_LEVEL_BITS = 6
LEVELS = 1 << _LEVEL_BITS
PATCH = 64
DISTANCES = (1, 2, 3, 4)
#: Patches counted together; their bins are numbered in 16 bits, which makes 16 the most.
_TOGETHER = 4

Counts = NDArray[np.int64]


def offsets() -> list[tuple[int, int]]:
    """Return ``(rows, columns)`` of the 16 offsets, by distance and then by angle.

    Rounded as scikit-image rounds: at 45 and 135 degrees the distances 1 and 2 both are one step along each axis.
    """
    angles = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
    return [(round(float(np.sin(a)) * d), round(float(np.cos(a)) * d)) for d in DISTANCES for a in angles]


def patches(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the patches of a grey image uint8 ``[H, W]`` as levels 0 to 63, uint8 ``[P, 64, 64]``; P may be 0."""
    rows, columns = gray.shape[0] // PATCH, gray.shape[1] // PATCH
    tiles = gray[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH)
    levels: NDArray[np.uint8] = (tiles.swapaxes(1, 2) // np.uint8(256 // LEVELS)).reshape(-1, PATCH, PATCH)
    return levels


def _codes(levels: NDArray[np.uint8]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return what the first and the second of a pair add to the number of their bin, ``[P, H, W]`` each, P <= 16."""
    second = levels.astype(np.uint16)
    first = second * np.uint16(LEVELS)
    first += (np.arange(len(levels), dtype=np.uint16) * np.uint16(LEVELS**2))[:, None, None]
    return first, second


def _count(first: NDArray[np.uint16], second: NDArray[np.uint16], offset: tuple[int, int]) -> Counts:
    """Count pairs of levels at an offset, as ``skimage.feature.graycomatrix`` does, not symmetric.

    Args:
        first: See `_codes`.
        second: Likewise.
        offset: Rows and columns from the first of a pair to the second.

    Returns:
        int64 ``[P, 64 * 64]``: first level times 64 plus second level -> number of pairs.
    """
    (rows, columns), (height, width) = offset, first.shape[1:]
    a = first[:, max(0, -rows) : height - max(0, rows), max(0, -columns) : width - max(0, columns)]
    b = second[:, max(0, rows) : height - max(0, -rows), max(0, columns) : width - max(0, -columns)]
    bins = len(first) * LEVELS**2
    return np.bincount((a + b).ravel(), minlength=bins).reshape(len(first), LEVELS**2)


@cache
def _shares() -> tuple[dict[tuple[int, int], tuple[int, NDArray[np.intp]]], NDArray[np.float64]]:
    """Return offset -> (how often it occurs among the 16, count -> number of its share), and the shares by number.

    A share is a count over the number of pairs, a value of a normalised matrix. Equal ones, such as 2 of 4032 and 1 of
    2016, have one number whichever offset they come from, since the released score asks how often each value occurs.
    Small counts have small numbers, so that the histograms of most patches are short.
    """
    pairs = {offset: (PATCH - abs(offset[0])) * (PATCH - abs(offset[1])) for offset in offsets()}
    numbers: dict[Fraction, int] = {}
    tables = {n: np.zeros(n + 1, np.intp) for n in sorted(set(pairs.values()))}
    for count in range(max(tables) + 1):
        for n, table in tables.items():
            if count <= n:
                table[count] = numbers.setdefault(Fraction(count, n), len(numbers))
    often = Counter(offsets())
    return {o: (often[o], tables[pairs[o]]) for o in often}, np.array([float(share) for share in numbers])


@cache
def _logs() -> NDArray[np.float64]:
    """Return n log2 n of every number of bins."""
    n = np.arange(len(offsets()) * LEVELS**2 + 1, dtype=np.float64)
    return n * np.log2(np.maximum(n, 1))


def glcm_entropies(gray: NDArray[np.uint8]) -> tuple[float, float]:
    """Return both entropies of an image's co-occurrence matrices, in bits, means over its patches.

    Args:
        gray: uint8 ``[H, W]``.

    Returns:
        ``(score, joint)``. The score is the released one: scikit-image's ``shannon_entropy`` of the array of all 16
        matrices, which is the entropy of the histogram of the array's *values* and no entropy of co-occurrence. The
        joint entropy is what one would expect: the mean over the matrices of ``-sum P log2 P``. Both are NaN for
        images smaller than a patch.
    """
    levels = patches(gray)
    if not len(levels):
        return float("nan"), float("nan")
    parts = [patch_entropies(levels[i : i + _TOGETHER]) for i in range(0, len(levels), _TOGETHER)]
    score, joint = (np.concatenate(values) for values in zip(*parts, strict=True))
    return float(score.mean()), float(joint.mean())


def patch_entropies(levels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the score and the joint entropy, see `glcm_entropies`, of each of some patches.

    Args:
        levels: uint8 ``[P, 64, 64]``, values below 64.

    Returns:
        float64 ``[P]``, twice.
    """
    first, second = _codes(levels)
    by_offset, values = _shares()
    shares, bins = [], []  # of every bin that is not empty, by offset: the number of its share, and which bin it is
    for offset, (often, table) in by_offset.items():
        found = _count(first, second, offset).ravel()
        filled = np.flatnonzero(found.astype(bool))
        shares += [table[found[filled]]] * often
        bins += [filled] * often
    cells = np.concatenate(shares)
    width = int(cells.max()) + 1
    patch = np.concatenate(bins)
    patch >>= 2 * _LEVEL_BITS  # a patch has LEVELS**2 bins
    patch *= width
    cells += patch
    histogram = np.bincount(cells, minlength=len(levels) * width).reshape(len(levels), width)
    joint = -(histogram[:, 1:] @ (values[1:width] * np.log2(values[1:width]))) / len(shares)
    total = len(shares) * LEVELS**2
    histogram[:, 0] = total - histogram.sum(1)
    score = np.log2(total) - _logs()[histogram].sum(1) / total
    return score, np.abs(joint)  # not -0.0 for a constant patch
