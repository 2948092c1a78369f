"""How much there is in a mask: connected regions, classes, how evenly the area is spread over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from genaug.labels import LabelSpace
from genaug.report.figures import Figures, Record, Statistic
from genaug.types import Mask, Sample

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import DensityOptions

#: Regions of a smaller share of the image do not count.
MIN_AREA = 0.0005
FIGURES = ("components", "classes", "area_entropy")


def mask_density(mask: Mask, labels: LabelSpace, *, min_area: float = MIN_AREA) -> dict[str, float]:
    """Return how dense a mask is.

    Args:
        mask: uint8 ``[H, W]``; pixels of the ignore index or of no class belong to no region.
        labels: Class table.
        min_area: Least share of the image's pixels of a region that counts.

    Returns:
        ``components``: regions of one class, connected over edges or corners; ``classes``: classes with at least one
        such region; ``area_entropy``: ``-sum f ln f`` in nats over the classes' shares f of the labelled pixels. NaN
        without a labelled pixel.
    """
    pixels = np.bincount(mask.ravel(), minlength=256)[list(labels.ids)]
    if not pixels.any():
        return dict.fromkeys(FIGURES, float("nan"))
    regions = class_regions(mask, labels, min_area=min_area)
    shares = pixels[pixels > 0] / pixels.sum()
    return {
        "components": float(regions.sum()),
        "classes": float((regions > 0).sum()),
        "area_entropy": float(abs(np.sum(shares * np.log(shares)))),
    }


def class_regions(mask: Mask, labels: LabelSpace, *, min_area: float = MIN_AREA) -> NDArray[np.intp]:
    """Return how many regions that count each class has, int ``[K]`` in the order of ``labels.ids``.

    Arguments are those of `mask_density`.
    """
    from skimage.measure import label

    ids = np.zeros(256, np.uint8)
    ids[list(labels.ids)] = np.arange(1, len(labels.ids) + 1)
    numbers = ids[mask]
    regions = label(numbers, background=0, connectivity=2).ravel()
    sizes = np.bincount(regions)
    class_of = np.zeros(len(sizes), np.uint8)
    class_of[regions] = numbers.ravel()
    large = sizes >= min_area * mask.size
    large[0] = False
    return np.bincount(class_of[large], minlength=len(labels.ids) + 1)[1:]


def density_statistics(prefix: str = "", words: str = "") -> list[Statistic]:
    """Return the statistics of `mask_density`'s figures, all of which are lower in sparser images."""
    titles = ("connected regions per image", "classes per image", "entropy of the class areas, nats")
    return [
        Statistic(prefix + name, title + words, prefix + name, worse="lower", harm="sparser")
        for name, title in zip(FIGURES, titles, strict=True)
    ]


class Density(Figures):
    """Section ``density``: figures of the masks themselves. Needs scikit-image.

    Args:
        labels: Class table.
        min_area: See `mask_density`.
    """

    title = "Density of the masks"
    about = (
        "How much an image holds. SENSE found that dense images teach more than sparse ones. Regions are counted in "
        "the masks that the images were made from; for images without masks, and for how much a segmenter sees in an "
        "image, name a predictor (section 'agreement')."
    )
    ranked = ("components",)

    def __init__(self, *, labels: LabelSpace, min_area: float = MIN_AREA) -> None:
        self.labels, self.min_area = labels, min_area

    @classmethod
    def from_config(cls, options: DensityOptions, context: BuildContext) -> Self:
        """Build from options."""
        return cls(labels=context.labels, min_area=options.min_area)

    def statistics(self) -> Sequence[Statistic]:
        """Return regions, classes and entropy."""
        return density_statistics()

    def measure(self, samples: Sequence[Sample]) -> Sequence[Record]:
        """Measure every mask; NaN without one."""
        nothing = dict.fromkeys(FIGURES, float("nan"))
        return [
            nothing if s.mask is None else mask_density(s.mask, self.labels, min_area=self.min_area) for s in samples
        ]
