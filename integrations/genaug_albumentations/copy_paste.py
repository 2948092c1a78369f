"""Pixels of chosen classes, taken from synthetic samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genaug.errors import ConfigError, StoreError, did_you_mean
from genaug.labels import LabelSpace
from genaug.types import Image, Mask
from genaug_albumentations.arguments import Folder, LabelTable
from genaug_albumentations.host import BaseTransformInitSchema
from genaug_albumentations.items import StoreItems
from genaug_albumentations.replacement import Change, KnownIds, Replacement

_WHERE = "CopyPasteFromStore"


class CopyPasteFromStore(Replacement):
    """Pastes the pixels of chosen classes of a drawn sample, in the image and in the mask.

    Pixels are copied, never averaged, and keep their place. A sample of another size is not scaled: it is put at a
    random place inside the image, or the image at a random place inside it, along each side; so what is pasted may lie
    outside.

    Args:
        store: Folder of a store.
        labels: Class table of your masks; see `SyntheticSwap`.
        classes: Ids or names of the classes to paste.
        class_balanced: Draw one of these classes evenly first, then a sample that holds it, and paste this class
            alone. By default a sample is drawn evenly among those that hold any of them, and all are pasted.
        p: Probability.

    Targets:
        image (uint8, RGB), mask (integers). Boxes, key points and additional targets are refused.

    Raises:
        StoreError: Not a store, nothing in it to train with, or none of the classes is in it.
        ConfigError: Another class table than the store's, or an unknown class.
        SampleError: In a call: no mask, ids without a class, or something else than image and mask.
    """

    __module__ = "genaug_albumentations"  # saved pipelines name the class by it

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]  # noqa: D106
        store: Folder
        labels: LabelTable
        classes: Sequence[int | str]
        class_balanced: bool

    def __init__(
        self,
        store: str | Path,
        labels: Any,
        classes: Sequence[int | str],
        class_balanced: bool = False,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.store, self.labels, self.classes, self.class_balanced = store, labels, list(classes), class_balanced
        self._items = StoreItems(str(store), labels, where=_WHERE)
        self._known = KnownIds(self._items.labels, where=_WHERE)
        wanted = _class_ids(self._items.labels, self.classes)
        holding = {class_id: numbers for class_id, numbers in self._items.holding().items() if class_id in wanted}
        if not holding:
            raise StoreError(f"no sample holds any of {self.classes}", where=str(store))
        # What may be drawn: which classes, and among which samples.
        self._choices: list[tuple[tuple[int, ...], np.ndarray]]
        if class_balanced:
            self._choices = [((class_id,), numbers) for class_id, numbers in holding.items()]
        else:
            self._choices = [(tuple(holding), np.unique(np.concatenate(list(holding.values()))))]

    def _change(
        self,
        image: Image,  # noqa: ARG002
        mask: Mask,
        data: Mapping[str, Any],  # noqa: ARG002
        generator: np.random.Generator,
    ) -> Change:
        self._known.check(mask)
        classes, numbers = self._choices[generator.integers(len(self._choices))]
        donor_image, donor_mask = self._items.read(int(numbers[generator.integers(len(numbers))]))
        sides = [_overlap(own, other, generator) for own, other in zip(mask.shape, donor_mask.shape, strict=True)]
        here, there = (tuple(side[i] for side in sides) for i in (0, 1))
        chosen = np.isin(donor_mask[there], classes)
        region = np.zeros(mask.shape, bool)
        region[here] = chosen
        return Change(donor_image[there][chosen], donor_mask[there][chosen], region)


def _overlap(own: int, other: int, generator: np.random.Generator) -> tuple[slice, slice]:
    """Lay two lengths over each other, the shorter at a random place within the longer; return each one's part."""
    room = own - other
    start = int(generator.integers(min(room, 0), max(room, 0) + 1))
    first, last = max(start, 0), min(start + other, own)
    return slice(first, last), slice(first - start, last - start)


def _class_ids(labels: LabelSpace, classes: Sequence[int | str]) -> set[int]:
    where = f"{_WHERE}, classes"
    if not classes:
        raise ConfigError("none", where=where, allowed="one or more ids or names")
    found: set[int] = set()
    for wanted in classes:
        ids = {class_id for class_id, name in labels.names.items() if wanted in (class_id, name)}
        if not ids:
            hint = did_you_mean(wanted, labels.names.values()) if isinstance(wanted, str) else None
            raise ConfigError(f"{wanted!r}", where=where, allowed=f"ids {list(labels.ids)} or their names", hint=hint)
        found |= ids
    return found
