"""How often each class is seen, in pixels and in images, against the real set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from genaug.labels import LabelSpace
from genaug.report.figures import Conclusion, Figures, Measured, Record, Statistic
from genaug.rng import Rng
from genaug.types import Mask, Sample

if TYPE_CHECKING:
    from genaug.recipe import BuildContext


def class_pixels(mask: Mask, labels: LabelSpace) -> dict[int, int]:
    """Return the pixels of every class of the table in a mask ``[H, W]``."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return {i: int(counts[i]) for i in labels.ids}


def names_of(labels: LabelSpace) -> dict[int, str]:
    """Return id -> name; names that several ids share get their id in brackets."""
    names = list(labels.names.values())
    return {i: name if names.count(name) == 1 else f"{name} ({i})" for i, name in labels.names.items()}


class Coverage(Figures):
    """Section ``coverage``.

    Args:
        labels: Class table.
    """

    title = "Coverage of the classes"
    about = "Shares of the labelled pixels, and of the images in which a class occurs."

    def __init__(self, *, labels: LabelSpace) -> None:
        self.labels = labels

    @classmethod
    def from_config(cls, options: Any, context: BuildContext) -> Self:  # noqa: ARG003
        """Build from options, of which there are none."""
        return cls(labels=context.labels)

    def statistics(self) -> Sequence[Statistic]:
        """Return two shares for every class."""
        return [
            statistic
            for i, name in names_of(self.labels).items()
            for statistic in (
                Statistic(f"pixels/{name}", "share of pixels", f"pixels/{i}", per="labelled", by=name),
                Statistic(f"images/{name}", "share of images", f"images/{i}", by=name),
            )
        ]

    def measure(self, samples: Sequence[Sample]) -> Sequence[Record]:
        """Count every mask; NaN without one."""
        return [self._measure(s.mask) for s in samples]

    def _measure(self, mask: Mask | None) -> Record:
        pixels = dict.fromkeys(self.labels.ids, np.nan) if mask is None else class_pixels(mask, self.labels)
        record = {f"pixels/{i}": float(n) for i, n in pixels.items()}
        record |= {f"images/{i}": np.nan if mask is None else float(n > 0) for i, n in pixels.items()}
        return {**record, "labelled": float(sum(pixels.values()))}

    def conclude(self, synthetic: Measured, real: Measured, rng: Rng) -> Conclusion:  # noqa: ARG002
        """Name the classes of the real set that the synthetic one lacks."""
        lost = [
            name
            for i, name in names_of(self.labels).items()
            if np.nansum(real.numbers(f"pixels/{i}")) > 0
            and np.isfinite(synthetic.numbers("labelled")).any()
            and np.nansum(synthetic.numbers(f"pixels/{i}")) == 0
        ]
        notes = (f"in no synthetic mask: {', '.join(lost)}",) if lost else ()
        return Conclusion({"missing_classes": lost}, notes=notes)
