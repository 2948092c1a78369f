"""Drawings of the quality page: the distributions of two sets over one axis, with the intervals of their means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, MARGIN = 380, 120, 12
_BASE, _TOP = 78, 8  # y of the histograms' foot and of their highest bar
_BANDS = {"synthetic": 88, "real": 98}  # y of the intervals
BINS = 24


@dataclass(frozen=True, slots=True)
class Band:
    """An interval below the axis: x of its ends and of the value."""

    low: float
    high: float
    value: float
    y: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of `WIDTH` x `HEIGHT`.

    Args:
        outlines: Set -> points ``x,y`` of its histogram's outline, empty where no image has a number.
        bands: Set -> the interval of its statistic.
        low: Number at the left end of the axis.
        high: Number at the right end.
    """

    outlines: Mapping[str, str]
    bands: Mapping[str, Band]
    low: float
    high: float


def chart(
    numbers: Mapping[str, NDArray[np.float64]], estimates: Mapping[str, tuple[float, float, float]]
) -> Chart | None:
    """Draw two sets.

    Args:
        numbers: Set -> the number of every image; others than finite ones are left out. Both histograms are drawn to
            the same area, on one axis from the 0.5th to the 99.5th percentile, what lies beyond in the last bars.
        estimates: Set -> value and interval of its statistic, as far as there is one.

    Returns:
        None where there is nothing to draw.
    """
    known = {name: values[np.isfinite(values)] for name, values in numbers.items()}
    if not estimates and not any(len(values) for values in known.values()):
        return None
    ends = [float(e) for v in known.values() if len(v) for e in np.percentile(v, [0.5, 99.5])]
    ends += [e for values in estimates.values() for e in values]
    low, high = min(ends), max(ends)
    if high <= low:
        low, high = low - 0.5, high + 0.5

    def x(value: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (value - low) / (high - low)

    edges = np.linspace(low, high, BINS + 1)
    shares = {name: _shares(values, edges) for name, values in known.items()}
    most = max([float(s.max()) for s in shares.values() if len(s)], default=1.0)
    outlines = {name: _outline(share, edges, most, x) for name, share in shares.items()}
    bands = {name: Band(x(a), x(b), x(value), _BANDS[name]) for name, (value, a, b) in estimates.items()}
    return Chart(outlines, bands, low, high)


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(values):
        return np.empty(0)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / len(values)


def _outline(shares: NDArray[np.float64], edges: NDArray[np.float64], most: float, x: Callable[[float], float]) -> str:
    if not len(shares):
        return ""
    points = [(x(edges[0]), float(_BASE))]
    for i, share in enumerate(shares):
        y = _BASE - (_BASE - _TOP) * float(share) / most
        points += [(x(edges[i]), y), (x(edges[i + 1]), y)]
    points.append((x(edges[-1]), _BASE))
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
