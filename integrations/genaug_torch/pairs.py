"""Which synthetic items stand for which real item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genaug.errors import ConfigError

#: Ids that a message shows.
SHOWN = 3


class Pairs:
    """For every real item the synthetic items that were made from it: those with the same id.

    Args:
        real: Ids of the real items, in order.
        synthetic: Ids of the synthetic items, in order; several may be made from one real item.

    Attributes:
        counts: int64 ``[real]``, how many synthetic items each real one has.
        paired: Numbers of the real items that have any.

    Raises:
        ConfigError: No id occurs in both, though there are synthetic items.
    """

    def __init__(self, real: Sequence[str], synthetic: Sequence[str]) -> None:
        numbers: dict[str, list[int]] = {}
        for number, sample_id in enumerate(synthetic):
            numbers.setdefault(sample_id, []).append(number)
        own = [numbers.get(sample_id, []) for sample_id in real]
        self.counts = np.array([len(part) for part in own], np.int64)
        self.paired = np.flatnonzero(self.counts)
        if len(synthetic) and not len(self.paired):
            raise ConfigError(
                f"none of {_some(real)} is an id of the synthetic items, {_some(synthetic)}",
                where="real_ids",
                allowed="ids of the samples that the store was made from, as its manifest has them",
            )
        self._starts = np.cumsum(self.counts) - self.counts
        self._items = np.array([number for part in own for number in part], np.int64)

    def own(self, real: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Return the synthetic item of each real one, the next of its own with every turn; 0 where there is none."""
        if not len(self._items):
            return np.zeros(len(real), np.int64)
        places = self._starts[real] + turn % np.maximum(self.counts[real], 1)
        items: np.ndarray = self._items[np.minimum(places, len(self._items) - 1)]
        return items


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(repr(sample_id) for sample_id in ids[:SHOWN]) + more
