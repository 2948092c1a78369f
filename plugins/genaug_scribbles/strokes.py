"""Strokes as pixels: lines of whole-number points, drawn with a round brush."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.int64]


def line(points: Points) -> Points:
    """Return the pixels of the one-pixel line through `points`.

    A segment from ``p`` to ``q`` has ``n = max(|dx|, |dy|)`` steps; step ``k`` is the pixel nearest to
    ``p + k (q - p) / n``, the larger coordinate of two equally near ones.

    Args:
        points: int64 ``[N, 2]``, x and y; N at least 1. A point that repeats the one before adds nothing.

    Returns:
        int64 ``[M, 2]``, x and y, from the first point to the last; neighbours differ by at most 1 in x and in y.
    """
    delta = np.diff(points, axis=0)
    steps = np.abs(delta).max(axis=1, initial=0)
    segment = np.repeat(np.arange(len(steps)), steps)
    n = steps[segment, None]
    k = (np.arange(len(segment)) - np.repeat(np.cumsum(steps) - steps, steps))[:, None]
    inner = points[segment] + (2 * delta[segment] * k + n) // (2 * n)
    return np.concatenate([inner, points[-1:]])


def brush(width: int) -> Points:
    """Return the offsets of a round brush, int64 ``[K, 2]``, x and y.

    Its centre is the middle of a pixel for odd widths, the corner up and left of one for even widths; it covers the
    pixels whose middle is at most ``width / 2`` away. Widths 1 to 3 are squares.

    Args:
        width: Diameter in pixels, at least 1.
    """
    reach = np.arange(-(width // 2), (width + 1) // 2)
    twice = 2 * reach + (width % 2 == 0)  # twice the distance to the centre
    y, x = np.nonzero(twice[:, None] ** 2 + twice[None, :] ** 2 <= width**2)
    return np.stack([reach[x], reach[y]], axis=1)


def painted(pixels: Points, offsets: Points, size: tuple[int, int]) -> NDArray[np.int64]:
    """Return the flat indices ``y * W + x`` under a brush that visits `pixels`; what lies outside is cut off.

    Args:
        pixels: int64 ``[M, 2]``, x and y.
        offsets: What `brush` gives.
        size: ``(height, width)``.

    Returns:
        int64, with repetitions.
    """
    height, width = size
    spots = (pixels[:, None] + offsets).reshape(-1, 2)
    x, y = spots[:, 0], spots[:, 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    flat: NDArray[np.int64] = y[inside] * width + x[inside]
    return flat
