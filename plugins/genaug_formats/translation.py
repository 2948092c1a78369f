"""Ids in files to class ids, where a format numbers its classes in another way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from genaug.errors import ConfigError
from genaug.labels import LabelSpace
from genaug.sources.files import RefusedError
from genaug.sources.survey import Finding
from genaug.types import Mask

#: Cityscapes: trainId of the 34 labelIds 0..33, None for those that training leaves out (cityscapesScripts, labels.py).
TRAIN_IDS: dict[int, int | None] = dict.fromkeys(range(34), None) | {
    label: train
    for train, label in enumerate((7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33))
}


class Translation:
    """Replaces the ids of a mask, each by one other.

    Args:
        table: Id in the files -> class id, or None for the ignore index. Ids that it does not have are errors.
        labels: Class table.
        what: What the files hold, for errors.
        hints: Id in the files -> advice, for ids that tell of a known mistake.

    Raises:
        ConfigError: The ignore index is also one of the class ids, so that a class would be ignored in silence.
    """

    def __init__(
        self, table: Mapping[int, int | None], labels: LabelSpace, *, what: str, hints: Mapping[int, str] | None = None
    ) -> None:
        self.what, self.hints, ignore = what, hints or {}, labels.ignore_index
        if ignore in table.values():
            raise ConfigError(
                f"{ignore} is one of the ids that the data source gives to classes",
                where="labels.ignore_index",
                allowed="an id that no class has, usually 255",
            )
        self._known = np.zeros(256, bool)
        self._known[list(table)] = True
        self._ids = np.full(256, ignore, np.uint8)
        for stored, class_id in table.items():
            self._ids[stored] = ignore if class_id is None else class_id

    def __call__(self, mask: Mask, *, name: str) -> Mask:
        """Return the mask ``[H, W]`` in class ids.

        Raises:
            RefusedError: It holds ids that the table does not have.
        """
        strange = [int(i) for i in np.unique(mask) if not self._known[i]]
        if strange:
            shown = ", ".join(map(str, strange[:8])) + (" ..." if len(strange) > 8 else "")
            hint = next((self.hints[i] for i in strange if i in self.hints), "")
            raise RefusedError(Finding(f"the mask holds ids that are no {self.what}", f"{name} ({shown})", hint))
        translated: Mask = self._ids[mask]
        return translated
