"""The samples of a store, to be drawn by number: all, those made from one image, or those that hold a class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genaug.engine.progress import bar
from genaug.errors import ConfigError
from genaug.labels import LabelSpace
from genaug.store.differences import differing_keys
from genaug.store.views import combine
from genaug.types import Image, Mask
from genaug_torch import StoreDataset


class StoreItems:
    """What a store has to train with (what its filters keep), under a class table that must be the user's.

    Args:
        store: Its folder.
        labels: The class table of the user's masks, as recipes write it.
        where: Named in errors.

    Attributes:
        labels: Class table of the store, which is also the user's.
        ids: Ids of the conditions that the store knows, with images to train with or without.

    Raises:
        StoreError: Not a store, or nothing in it to train with.
        ConfigError: The class tables differ.
    """

    def __init__(self, store: str, labels: Any, *, where: str) -> None:
        self._dataset = StoreDataset(store)
        self.labels = self._dataset.labels
        _compare(LabelSpace.from_config(labels), self.labels, store, where)
        self.ids = {key.rpartition("_")[0] for key in self._dataset.store.index}
        own: dict[str, list[int]] = {}
        for number, sample_id in enumerate(self._dataset.ids):
            own.setdefault(sample_id, []).append(number)
        self._own = {sample_id: np.array(numbers) for sample_id, numbers in own.items()}

    def __len__(self) -> int:
        return len(self._dataset)

    def own(self, sample_id: str) -> NDArray[np.int64]:
        """Return the numbers of the samples that were made from a condition."""
        return self._own.get(sample_id, np.zeros(0, np.int64))

    def read(self, number: int) -> tuple[Image, Mask]:
        """Read image ``[H, W, 3]`` and mask ``[H, W]`` of a sample."""
        sample = self._dataset.sample(number)
        assert sample.image is not None
        assert sample.mask is not None
        return sample.image, sample.mask

    def holding(self) -> dict[int, NDArray[np.int64]]:
        """Return the numbers of the samples that hold each class, by id; reads all masks."""
        store = self._dataset.store
        changed = store.training_view().changed
        found: dict[int, list[int]] = {class_id: [] for class_id in self.labels.ids}
        for number, key in enumerate(bar(self._dataset.keys, "classes of the store", total=len(self))):
            mask = store.mask(store.row(key)["mask"])
            if key in changed:
                mask = combine(store, mask, changed[key])
            present = np.bincount(mask.ravel(), minlength=256)
            for class_id, numbers in found.items():
                if present[class_id]:
                    numbers.append(number)
        return {class_id: np.array(numbers) for class_id, numbers in found.items() if numbers}


def _compare(declared: LabelSpace, stored: LabelSpace, store: str, where: str) -> None:
    tables = [{"names": dict(labels.names), "ignore_index": labels.ignore_index} for labels in (stored, declared)]
    if differences := differing_keys(*tables):
        raise ConfigError(
            f"the class table is not that of the store {store}: {differences} there",
            where=f"{where}, labels",
            allowed="the class table that the store was made with",
            hint="Ids are never changed on the way: make the store and read your masks with one table",
        )
