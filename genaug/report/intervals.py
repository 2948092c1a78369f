"""Bootstrap intervals of means and ratios, for all statistics of a set at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genaug.report.figures import Measured, Statistic
from genaug.rng import Rng

#: Redrawn sets behind an interval.
DRAWS = 1000
LEVEL = 0.95
#: Groups that both sets must have for a flag. An interval of fewer is too narrow: of two sets drawn from one
#: distribution, one looks worse by chance in 16 % of all cases at 2 groups, 5 % at 3, 3 % at 5, 1 % at 10.
FEWEST = 10
_CELLS = 1 << 18  # numbers of one block of redrawn sets: 2 MB an array

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimates:
    """All statistics of one set.

    Args:
        values: ``[S]``, NaN where no image has a number.
        draws: ``[D, S]``, the same of sets redrawn with replacement.
    """

    values: Floats
    draws: Floats

    def interval(self, i: int) -> tuple[float, float] | None:
        """Return the 95 % percentile interval of statistic `i`; None where it has none."""
        return percentile_interval(self.draws[:, i])


def percentile_interval(draws: Floats) -> tuple[float, float] | None:
    """Return the 95 % interval of redrawn values ``[D]``; None if some have no value or nothing was redrawn."""
    if not len(draws) or not np.isfinite(draws).all():
        return None
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def estimate(measured: Measured, statistics: Sequence[Statistic], rng: Rng, *, draws: int = DRAWS) -> Estimates:
    """Estimate statistics and redraw them.

    Whole groups are redrawn: five images of one mask are not five independent images. A set of one group is not
    redrawn. Groups of unequal size make every statistic a ratio of two sums, means included.

    Args:
        measured: The set.
        statistics: S statistics.
        rng: Decides which groups are drawn.
        draws: D.
    """
    above, below = np.empty((len(measured), len(statistics))), np.empty((len(measured), len(statistics)))
    for i, statistic in enumerate(statistics):
        value = measured.numbers(statistic.value)
        weight = np.ones(len(value)) if statistic.per is None else measured.numbers(statistic.per)
        known = np.isfinite(value) & np.isfinite(weight)
        above[:, i], below[:, i] = np.where(known, value, 0), np.where(known, weight, 0)
    count = int(measured.groups.max()) + 1 if len(measured) else 0
    sums = [np.zeros((count, len(statistics))) for _ in range(2)]
    for total, part in zip(sums, (above, below), strict=True):
        np.add.at(total, measured.groups, part)
    values = _ratio(sums[0].sum(0), sums[1].sum(0))
    if count < 2:
        return Estimates(values, np.empty((0, len(statistics))))
    return Estimates(values, _redrawn(sums[0], sums[1], rng, draws))


def _redrawn(above: Floats, below: Floats, rng: Rng, draws: int) -> Floats:
    count, numbers = len(above), rng.numpy()
    block = max(1, _CELLS // count)
    parts = []
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        chosen = numbers.integers(0, count, (rows, count))
        chosen += np.arange(rows)[:, None] * count
        times = np.bincount(chosen.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
        parts.append(_ratio(times @ above, times @ below))
    return np.concatenate(parts)


def _ratio(above: Floats, below: Floats) -> Floats:
    result: Floats = np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
    return result
