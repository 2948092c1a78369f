"""A sample store as a map-style dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from genaug.batch import to_tensor
from genaug.errors import ConfigError, SampleError, StoreError
from genaug.labels import LabelSpace
from genaug.store import SampleStore
from genaug.types import Mask, Sample


class StoreDataset(Dataset[Any]):
    """The samples of a store, read from disk one at a time; safe in any number of workers, forked or spawned.

    Items are ``(image, mask)``: float32 ``[3, H, W]`` in ``[0, 1]`` and int64 ``[H, W]``, at the size they were made.
    With a `transform`, an item is what that returns for the `genaug.Sample` (image uint8 ``[H, W, 3]`` RGB, mask uint8
    ``[H, W]``), for instance ``lambda s: my_transform(image=s.image, mask=s.mask)``.

    Args:
        store: A `genaug.SampleStore`, or its folder.
        view: ``"training"``: samples that every filter keeps, with the pixels ignored that a filter ignores, less the
            samples that have no labelled pixel left, whose loss would be NaN.
            ``"all"``: every sample with its original mask, whatever the filters said.
        targets: ``"ids"``: masks hold class ids, as the real masks do. ``"indices"``: masks hold the position of the
            class in ``labels.ids``, 0 to K-1, as most losses want it.
        transform: Makes an item of a sample; runs in the worker.

    Attributes:
        labels: Class table of the store.
        keys: Key in the store of every item, ``<condition id>_<k>``.
        ids: Id of the condition (the mask, the scribble) that every item was made from.
        ignore_index: What ignored pixels hold: that of the class table; with ``targets="indices"`` 255 where the
            table's own is also an index.

    Raises:
        StoreError: Not a store, nothing in it to train with, images without masks, or (while reading) a damaged file.
        ConfigError: An unknown `view` or `targets`.

    Example:
        >>> loader = DataLoader(StoreDataset("synthetic"), batch_size=8, shuffle=True)  # doctest: +SKIP
    """

    def __init__(
        self,
        store: SampleStore | str | Path,
        *,
        view: Literal["training", "all"] = "training",
        targets: Literal["ids", "indices"] = "ids",
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        _one_of(view, ("training", "all"), "view")
        _one_of(targets, ("ids", "indices"), "targets")
        self.store = store if isinstance(store, SampleStore) else SampleStore.open(store)
        self.labels: LabelSpace = self.store.labels
        self.transform = transform
        training = self.store.training_view() if view == "training" else None
        self._samples: Sequence[Sample] | None = training
        self.keys: tuple[str, ...] = self.store.keys() if training is None else training.keys
        if not self.keys:
            empty = 0 if training is None else len(training.nothing_left)
            raise StoreError(
                f"no sample to train with: {_shortage(self.store, empty)}",
                where=str(self.store.path),
                hint="Run 'genaug run' first, or see why in metadata.jsonl",
            )
        if self.store.row(self.keys[0])["mask"] is None:
            raise StoreError(
                "its images were made from prompts and have no masks",
                where=str(self.store.path),
                hint="Use them as unlabelled images: genaug_torch.UnlabeledImages",
            )
        self.ids: tuple[str, ...] = tuple(key.rpartition("_")[0] for key in self.keys)
        self.ignore_index = self.labels.ignore_index
        self._table: np.ndarray | None = None
        if targets == "indices":
            self.ignore_index = self.ignore_index if self.ignore_index >= len(self.labels.ids) else 255
            self._table = index_table(self.labels, self.ignore_index)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Any:
        sample = self.sample(index)
        return to_tensor(sample) if self.transform is None else self.transform(sample)

    def sample(self, index: int) -> Sample:
        """Return item `index` before `transform`, its mask already in the form that `targets` names."""
        sample = self.store.sample(self.keys[index]) if self._samples is None else self._samples[index]
        if self._table is None or sample.mask is None:
            return sample
        return Sample(sample.id, sample.image, to_indices(sample.mask, self._table, sample.id), sample.meta)


def index_table(labels: LabelSpace, ignore_index: int) -> np.ndarray:
    """Return int16 ``[256]``: the index of every class id, `ignore_index` for ignored pixels, -1 for unknown ids."""
    table = np.full(256, -1, np.int16)
    table[list(labels.ids)] = np.arange(len(labels.ids))
    table[labels.ignore_index] = ignore_index
    return table


def to_indices(mask: Mask, table: np.ndarray, key: str) -> Mask:
    """Turn class ids ``[H, W]`` into indices by an `index_table`.

    Raises:
        SampleError: The mask holds an id that the class table lacks.
    """
    result = table[mask]
    if (result < 0).any():
        strange = sorted(set(mask[result < 0].tolist()))
        raise SampleError(f"ids {strange} have no class", where=f"mask of {key}", allowed="ids of the class table")
    return result.astype(np.uint8)


def _shortage(store: SampleStore, nothing_left: int) -> str:
    """Say where all samples of a store went."""
    if not len(store):
        return "0 were made"
    kept = f", the filters ({', '.join(store.filters)}) keep {nothing_left or 'none'}" if store.filters else ""
    return f"{len(store)} were made{kept}" + (", and every pixel of those is ignored" if nothing_left else "")


def _one_of(value: str, allowed: tuple[str, ...], where: str) -> None:
    if value not in allowed:
        raise ConfigError(f"{value!r}", where=where, allowed=" or ".join(map(repr, allowed)))
