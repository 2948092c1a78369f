"""An image and its mask give their place to a synthetic sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genaug.errors import ConfigError, SampleError
from genaug.types import Image, Mask
from genaug_albumentations.arguments import METADATA_KEY, Folder, LabelTable, metadata
from genaug_albumentations.host import BaseTransformInitSchema
from genaug_albumentations.items import StoreItems
from genaug_albumentations.replacement import Change, KnownIds, Replacement

_WHERE = "SyntheticSwap"


class SyntheticSwap(Replacement):
    """Replaces image and mask by a sample of a store, as it was made: the size may become another one.

    Put it first, before crops, flips and colours, and a crop or resize after it if sizes differ. Samples are those
    that every filter keeps, with the pixels ignored that a filter ignores.

    Args:
        store: Folder of a store.
        labels: Class table of your masks, as recipes write it: the name of a set, a YAML or JSON file, ``{id: name}``
            or ``{names, ignore_index}``. It must be the store's; ids are never changed.
        draw: ``"homologous"``: one of the samples made from this image's own mask; the call must give its id,
            ``genaug_metadata={"id": ...}``. An image of which the filters keep no sample stays. ``"random"``: any.
        class_balanced: With ``"random"``: draw a class evenly first, then one of the samples that hold it. Reads all
            masks of the store when the transform is made.
        unknown_ids: What to do with an id that the store never heard of: ``"error"``, or ``"keep"`` the real image.
        metadata_key: Name of the argument that has the id.
        p: Probability.

    Targets:
        image (uint8, RGB), mask (integers). Boxes, key points and additional targets are refused.

    Raises:
        StoreError: Not a store, or nothing in it to train with.
        ConfigError: Another class table than the store's, or `class_balanced` without ``draw="random"``.
        SampleError: In a call: no mask, no id, an unknown id, ids without a class, or something else than image and
            mask.
    """

    __module__ = "genaug_albumentations"  # saved pipelines name the class by it

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]  # noqa: D106
        store: Folder
        labels: LabelTable
        draw: Literal["homologous", "random"]
        class_balanced: bool
        unknown_ids: Literal["error", "keep"]
        metadata_key: str

    def __init__(
        self,
        store: str | Path,
        labels: Any,
        draw: Literal["homologous", "random"] = "homologous",
        class_balanced: bool = False,
        unknown_ids: Literal["error", "keep"] = "error",
        metadata_key: str = METADATA_KEY,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.store, self.labels, self.draw, self.class_balanced = store, labels, draw, class_balanced
        self.unknown_ids, self.metadata_key = unknown_ids, metadata_key
        if class_balanced and draw != "random":
            found = "set, but samples of one mask hold the same classes"
            raise ConfigError(found, where=f"{_WHERE}, class_balanced", allowed="with draw='random'")
        self._items = StoreItems(str(store), labels, where=_WHERE)
        self._known = KnownIds(self._items.labels, where=_WHERE)
        everything = np.arange(len(self._items))
        self._choices = list(self._items.holding().values()) if class_balanced else [everything]

    @property
    def available_keys(self) -> set[str]:
        """What a strict pipeline may be called with."""
        return {*super().available_keys, self.metadata_key}

    def _change(
        self,
        image: Image,  # noqa: ARG002
        mask: Mask,
        data: Mapping[str, Any],
        generator: np.random.Generator,
    ) -> Change | None:
        self._known.check(mask)
        if self.draw == "random":
            numbers = self._choices[generator.integers(len(self._choices))]
        else:
            numbers = self._own(data)
        return Change(*self._items.read(int(numbers[generator.integers(len(numbers))]))) if len(numbers) else None

    def _own(self, data: Mapping[str, Any]) -> np.ndarray:
        sample_id = metadata(data, self.metadata_key, "id", where=_WHERE, what="id of the image")
        if not isinstance(sample_id, str):
            found = f"the id {sample_id!r} is of type {type(sample_id).__name__}"
            hint = "Pass the name of the image's file without its ending"
            raise SampleError(found, where=_WHERE, allowed=f"text, such as {min(self._items.ids)!r}", hint=hint)
        if self.unknown_ids == "error" and sample_id not in self._items.ids:
            raise SampleError(
                f"the store knows no {sample_id!r}",
                where=_WHERE,
                allowed=f"ids of its conditions, such as {min(self._items.ids)!r}",
                hint="If it was made from a part of your images only, set unknown_ids='keep'",
            )
        return self._items.own(sample_id)
