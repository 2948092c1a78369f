"""The filter ``class-balanced``: n samples of a larger store in which rare classes take as much room as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from genaug.errors import SampleError
from genaug.interfaces import Filter, FilterContext
from genaug.labels import LabelSpace
from genaug.types import Group, Verdict
from genaug_quality.coverage import class_pixels

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import ClassBalancedOptions

#: Share of an image that every class is thought to have before anything is chosen: what keeps the logarithm finite.
START = 1e-3


def balance(shares: NDArray[np.float64]) -> float:
    """Return how balanced a choice is: the sum over the classes of the logarithm of their total share.

    Args:
        shares: ``[N, C]``, of the chosen samples' pixels.
    """
    return float(np.log(START + shares.sum(0)).sum())


def choose_balanced(shares: NDArray[np.float64], copies: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Choose items one by one, each time the one that raises `balance` most; the first of equally good ones.

    `balance` is submodular, so the choice gains at least 63 % of what the best one does (Nemhauser, Wolsey and Fisher
    1978).

    Args:
        shares: ``[N, C]``, shares of the classes in each item's pixels.
        copies: int ``[N]``, how often an item may be chosen.
        count: How many to choose; more than there are chooses all.

    Returns:
        int ``[N]``: how often each item was chosen.
    """
    chosen, left = np.zeros(len(copies), np.intp), copies.copy()
    total = np.full(shares.shape[1], START)
    for _ in range(min(count, int(copies.sum()))):
        gain = np.log1p(shares / total).sum(1)
        best = int(np.where(left > 0, gain, -1.0).argmax())
        chosen[best] += 1
        left[best] -= 1
        total += shares[best]
    return chosen


class ClassBalancedFilter(Filter):
    """Keeps n samples, chosen so that the classes share the pixels as evenly as the store allows.

    Looks at the conditions' masks, of which every one gives `samples_per_condition` images; of a condition that is
    chosen k times the first k are kept. What other filters drop is not made up for.

    Scores: ``chosen``, how many images its condition keeps.

    Args:
        labels: Class table.
        count: n.
    """

    def __init__(self, *, labels: LabelSpace, count: int) -> None:
        self.labels, self.count = labels, count
        self._chosen: dict[str, int] | None = None

    @classmethod
    def from_config(cls, options: ClassBalancedOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        return cls(labels=context.labels, count=options.count)

    def prepare(self, context: FilterContext) -> None:
        """Choose among all conditions."""
        names, shares = [], []
        for name, mask in context.conditions():
            names.append(name)
            shares.append(np.array(list(class_pixels(mask, self.labels).values())) / mask.size)
        copies = np.full(len(names), context.samples_per_condition, np.intp)
        table = np.array(shares).reshape(len(names), len(self.labels.ids))
        self._chosen = dict(zip(names, choose_balanced(table, copies, self.count).tolist(), strict=True))

    def _judge(self, group: Group) -> Sequence[Verdict]:
        if self._chosen is None or group.id not in self._chosen:
            raise SampleError(
                "class-balanced has not seen this condition",
                where=f"group {group.id}",
                hint="Call prepare(context) first; its conditions must hold every group",
            )
        keep = self._chosen[group.id]
        scores = {"chosen": float(keep)}
        reason = f"its condition keeps {keep} images of {self.count} in all, for balanced classes"
        return [
            Verdict(True, scores=scores) if place < keep else Verdict(False, reason, scores=scores)
            for place in range(len(group.samples))
        ]
