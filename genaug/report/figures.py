"""What a section of the quality report is: figures of every image, figures of a whole set, what to show of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genaug.rng import Rng
from genaug.types import Sample

#: What `Figures.measure` says of one sample: numbers, NaN where there is none, or arrays of one shape for all samples.
Record = Mapping[str, float | NDArray[Any]]
#: ``(height, width)`` -> number of images.
Sizes = Counter[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Statistic:
    """One number of a set, compared between the two sets with a bootstrap interval.

    Args:
        name: Its key in ``quality.json``; the per-image numbers behind it are the column `value`.
        title: It in words, with the unit.
        value: A column of numbers: the statistic is their mean over the images that have one.
        per: A second column: the statistic is the ratio of both columns' sums instead.
        worse: The side on which an image or a set is worse; None where neither is.
        harm: What a synthetic set that is worse than the real one then is, in one word (sparser, coarser); empty for no
            flag.
        by: The class that it is about, for tables by class.
    """

    name: str
    title: str
    value: str
    per: str | None = None
    worse: Literal["lower", "higher"] | None = None
    harm: str = ""
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one set.

    Args:
        ids: Keys of the N samples.
        groups: int ``[N]``; samples made from one condition share a number and are drawn together by the bootstrap.
        columns: name -> ``[N]`` numbers, or ``[N, ...]``.
    """

    ids: tuple[str, ...]
    groups: NDArray[np.intp]
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.ids)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column as float64 ``[N]``; all NaN if it was not measured."""
        column = self.columns.get(name)
        return np.full(len(self.ids), np.nan) if column is None else column.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report: text and numbers, None for nothing to say."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Show:
    """A row of pictures.

    Args:
        title: Its heading.
        pictures: ``(set, sample id, caption)``, set being ``"synthetic"`` or ``"real"``.
    """

    title: str
    pictures: tuple[tuple[Literal["synthetic", "real"], str, str], ...]


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a section says beyond its statistics.

    Args:
        figures: More numbers for ``quality.json``, JSON-like.
        tables: More tables.
        shows: More rows of pictures.
        flags: ``(harm, sentence)`` of what makes the synthetic set look worse.
        notes: What the reader should know, without full stop.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    shows: tuple[Show, ...] = ()
    flags: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


class Figures(ABC):
    """A section of the quality report. Plugins declare it as a component of the kind ``figures``.

    A section whose options all have defaults is part of every report; one that needs a model appears when the user
    names it.

    Example:
        class Brightness(Figures):
            title = "Brightness"

            def statistics(self):
                return [Statistic("brightness", "mean grey value", "mean")]

            def measure(self, samples):
                return [{"mean": s.image.mean()} for s in samples]
    """

    #: Heading.
    title: str = ""
    #: What the figures mean and where they come from, in a few sentences.
    about: str = ""
    #: Whether worker processes may measure: the section pickles, and imports nothing that needs seconds to start.
    parallel: bool = True
    #: How many samples `measure` gets at once, at most: what one process holds in memory.
    together: int = 8
    #: Names of statistics by which the page shows the worst and the best images.
    ranked: tuple[str, ...] = ()

    def prepare(self, *, synthetic: Sizes, real: Sizes) -> None:  # noqa: B027  (optional to override)
        """Look at the image sizes of both sets before anything is measured; the default does nothing."""

    @abstractmethod
    def statistics(self) -> Sequence[Statistic]:
        """Return what is compared."""

    @abstractmethod
    def measure(self, samples: Sequence[Sample]) -> Sequence[Record]:
        """Measure some samples, each by itself: a record must not depend on its neighbours.

        Args:
            samples: With an image uint8 ``[H, W, 3]``; the mask uint8 ``[H, W]`` may be None. Sizes may differ.

        Returns:
            One record per sample, all with the same keys.
        """

    def conclude(self, synthetic: Measured, real: Measured, rng: Rng) -> Conclusion:  # noqa: ARG002
        """Return what can only be said of whole sets; by default nothing."""
        return Conclusion()
