"""ScribbleGen's encode ratios in training: which of a store's sets of images an epoch sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from genaug.errors import ConfigError, StoreError
from genaug.rng import Rng
from genaug.store import SampleStore
from genaug.types import Sample
from genaug_torch.epochs import SharedEpoch
from genaug_torch.store_dataset import StoreDataset

#: Where a sample's encode ratio is, in what its generator tells of it.
META = "encode_ratio"
#: Ratios that differ by less are one: a recipe's 0.3 may be somebody's 0.1 * 3.
SAME = 1e-6


def encode_ratio_at(epoch: int, levels: Sequence[float], epochs: int = 60) -> float:
    """Return ScribbleGen's adaptive encode ratio, ``levels[min(floor(epoch * L / epochs), L - 1)]`` for L levels.

    With ascending levels it never falls: it begins at the first level, has them for equally long, give or take an
    epoch, and stays at the last from there on.

    Args:
        epoch: 0 or more.
        levels: One or more encode ratios.
        epochs: Length of the training.

    Raises:
        ConfigError: A negative epoch, no levels, or a length below 1.
    """
    for where, value, least in (("epoch", epoch, 0), ("epochs", epochs, 1), ("number of levels", len(levels), 1)):
        if value < least:
            raise ConfigError(f"{value}", where=where, allowed=f"{least} or more")
    return levels[min(epoch * len(levels) // epochs, len(levels) - 1)]


class EncodeRatioDataset(Dataset[Any]):
    """The samples of a store that has every label's images at several encode ratios, one ratio at a time.

    ScribbleGen begins training with images close to the real ones (a low encode ratio) and goes on to ever freer ones.
    An item is a condition (a scribble) and the number of one of its images; in every epoch it has the same label, and
    the image that was made at the ratio of the epoch. So the length stays the same, and with it samplers, the steps of
    an epoch, and learning rate schedules.

    Filters may keep an item at some ratios and drop it at others. With ``"adaptive"`` and ``"random"`` an item that is
    kept at any of the levels takes part: adaptive takes, where the epoch's ratio is missing, the nearest that is there
    (of two equally near the lower, which is closer to the real image); random draws among those that are there. With a
    number, items are those that are kept at exactly that ratio.

    Call `set_epoch` before every epoch; workers see it, persistent ones too. Inside a `MixedDataset` call that one's.
    Items look like those of a `StoreDataset`.

    Args:
        store: A `genaug.SampleStore`, or its folder.
        encode_ratio: ``"adaptive"``: the same ratio for all items, rising with the epochs, see `encode_ratio_at`.
            ``"random"``: one of the levels for each item by itself, drawn evenly from (`seed`, epoch, item). A number:
            always that one.
        epochs: Length of the training, for ``"adaptive"``; 60 in the released code.
        levels: Encode ratios to use, ascending; all that the store has by default. Not with a number.
        seed: Of the random ratios.
        view: See `StoreDataset`.
        targets: See `StoreDataset`.
        transform: See `StoreDataset`.

    Attributes:
        dataset: All samples of the store, of every ratio, as a `StoreDataset`.
        levels: The encode ratios in use, ascending.
        ids: Id of the condition of every item.
        substituted: For every level, how many items have no image of their own there.

    Raises:
        StoreError: Not a store, nothing in it to train with (at one of the levels), or its samples have no encode
            ratios.
        ConfigError: A wrong argument, or a level that the store does not have.

    Example:
        >>> synthetic = EncodeRatioDataset("synthetic", epochs=60)  # doctest: +SKIP
        >>> train = MixedDataset(real, synthetic, ratio=1.0, real_ids=ids)  # doctest: +SKIP
        >>> for epoch in range(60):  # doctest: +SKIP
        ...     train.set_epoch(epoch)
    """

    def __init__(
        self,
        store: SampleStore | str | Path,
        *,
        encode_ratio: Literal["adaptive", "random"] | float = "adaptive",
        epochs: int = 60,
        levels: Sequence[float] | None = None,
        seed: int = 0,
        view: Literal["training", "all"] = "training",
        targets: Literal["ids", "indices"] = "ids",
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        encode_ratio_at(0, (0.0,), epochs)  # tells of a wrong number of epochs
        self.encode_ratio, self.epochs, self.seed = encode_ratio, int(epochs), int(seed)
        self.dataset = StoreDataset(store, view=view, targets=targets, transform=transform)
        self.labels, self.ignore_index = self.dataset.labels, self.dataset.ignore_index
        known, images = _images(self.dataset)
        self.levels = self._levels(known, levels)
        self.ids, self._numbers = self._table(images)
        self._nearest = np.stack([_nearest(row, self.levels) for row in self._numbers])
        missing = (self._numbers < 0).sum(0).tolist()
        self.substituted: dict[float, int] = dict(zip(self.levels, missing, strict=True))
        self._epoch = SharedEpoch()

    def _levels(self, known: Sequence[float], wanted: Sequence[float] | None) -> tuple[float, ...]:
        """Return the levels in use, as the store writes them."""
        where = "levels"
        if self.encode_ratio not in ("adaptive", "random"):
            where = "encode_ratio"
            if isinstance(self.encode_ratio, str | bool):
                raise ConfigError(f"{self.encode_ratio!r}", where=where, allowed="'adaptive', 'random', or a number")
            if wanted is not None:
                raise ConfigError("given with a fixed encode_ratio", where="levels", allowed="one of the two")
            wanted = [self.encode_ratio]
        if wanted is None:
            return tuple(known)
        if not len(wanted) or any(high - low < SAME for low, high in pairwise(wanted)):
            raise ConfigError(f"{list(wanted)}", where=where, allowed="one or more numbers, ascending")
        found = [next((level for level in known if abs(level - ratio) < SAME), None) for ratio in wanted]
        levels = tuple(level for level in found if level is not None)
        if len(levels) != len(wanted):
            strange = [ratio for ratio, level in zip(wanted, found, strict=True) if level is None]
            raise ConfigError(f"{strange}", where=where, allowed=f"what the store has: {list(known)}")
        return levels

    def _table(self, images: _Images) -> tuple[tuple[str, ...], np.ndarray]:
        """Return every item's condition, and its number in `dataset` at every level, -1 where there is none."""
        rows: dict[tuple[str, int], list[int]] = {}
        for number, (sample_id, ratio, place) in enumerate(images):
            if ratio in self.levels:
                row = rows.setdefault((sample_id, place), [-1] * len(self.levels))
                row[self.levels.index(ratio)] = number
        numbers = np.array(list(rows.values()), np.int64).reshape(-1, len(self.levels))
        if empty := [level for column, level in enumerate(self.levels) if not (numbers[:, column] >= 0).any()]:
            raise StoreError(
                f"no sample to train with at encode ratio {', '.join(map(str, empty))}",
                where=str(self.dataset.store.path),
                hint="See why in metadata.jsonl, or leave the ratio out of 'levels'",
            )
        return tuple(sample_id for sample_id, _ in rows), numbers

    def set_epoch(self, epoch: int) -> None:
        """Switch to the encode ratios of an epoch; call it before the epoch's iterator is made.

        Args:
            epoch: Number of the epoch, 0 or more.
        """
        self._epoch.set(epoch)

    @property
    def epoch(self) -> int:
        """Number that `set_epoch` was given last; 0 before."""
        return self._epoch.get()

    def __len__(self) -> int:
        return len(self._numbers)

    def level(self, index: int) -> float:
        """Return the encode ratio of item `index` in the present epoch: that of its image."""
        return self.levels[self._column(index)]

    def key(self, index: int) -> str:
        """Return the store's key of item `index` in the present epoch."""
        return self.dataset.keys[self._number(index)]

    def sample(self, index: int) -> Sample:
        """Return item `index` of the present epoch before `transform`, see `StoreDataset.sample`."""
        return self.dataset.sample(self._number(index))

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self._number(index)]

    def _number(self, index: int) -> int:
        return int(self._numbers[index, self._column(index)])

    def _column(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        index, epoch = index % len(self), self.epoch
        if self.encode_ratio == "random":
            kept = np.flatnonzero(self._numbers[index] >= 0)
            drawn = Rng(self.seed).child("encode-ratio", epoch, index).numpy().integers(len(kept))
            return int(kept[drawn])
        wanted = encode_ratio_at(epoch, self.levels, self.epochs)
        return int(self._nearest[index, self.levels.index(wanted)])


#: Of every item of a dataset its condition, encode ratio, and place among the condition's images of that ratio.
_Images = list[tuple[str, float, int]]


def _images(dataset: StoreDataset) -> tuple[list[float], _Images]:
    """Return the encode ratios of a store, ascending, and what every item of the dataset is.

    Raises:
        StoreError: A sample has no encode ratio.
    """
    place_of: dict[str, tuple[str, float, int]] = {}
    known: set[float] = set()
    for rows in dataset.store.grouped_rows():  # dropped samples as well, so that places do not depend on filters
        count: dict[float, int] = {}
        for row in rows:
            ratio = row["meta"].get(META)
            if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not math.isfinite(ratio):
                raise StoreError(
                    f"encode ratio {ratio!r}",
                    where=f"{dataset.store.path}, sample {row['key']}",
                    allowed="a number in meta.encode_ratio of every sample, as ScribbleGen writes it",
                    hint="For stores of other generators use StoreDataset",
                )
            place = count[ratio] = count.get(ratio, -1) + 1
            place_of[row["key"]] = (row["id"], float(ratio), place)
            known.add(float(ratio))
    return sorted(known), [place_of[key] for key in dataset.keys]


def _nearest(numbers: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return for every level the column of the nearest one that an item has; of two equally near the lower.

    Args:
        numbers: int64 ``[L]``, -1 where the item has no image; not all of them.
        levels: L ascending numbers.
    """
    kept = np.flatnonzero(numbers >= 0)
    values = np.array(levels)
    distances = np.round(np.abs(values[:, None] - values[kept]), 9)  # 0.5 is as far from 0.4 as from 0.6
    nearest: np.ndarray = kept[distances.argmin(1)]
    return nearest
