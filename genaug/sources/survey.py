"""What reading a whole data set once has shown: its problems, told together, and its class statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from genaug.types import Mask

NAMED = 3  # file names that a problem lists before it says "and N more"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with one file.

    Args:
        what: The problem, as a sentence without its full stop; findings of equal `what` become one remark.
        subject: The file or sample, with details in brackets.
        hint: What to do, without its full stop.
    """

    what: str
    subject: str
    hint: str = ""


def listed(subjects: Sequence[str], limit: int | None = NAMED) -> str:
    """Return ``'a, b, c and 9 more'``; all of them if `limit` is None."""
    if limit is None or len(subjects) <= limit:
        return ", ".join(subjects)
    return f"{', '.join(subjects[:limit])} and {len(subjects) - limit} more"


@dataclass(frozen=True, slots=True)
class Remark:
    """One kind of problem, or one thing worth knowing, with all files that it is about.

    Args:
        what: It, as a sentence without its full stop.
        subjects: The files or samples, all of them; none where it is about no file in particular.
        hint: What to do, without its full stop.
    """

    what: str
    subjects: tuple[str, ...] = ()
    hint: str = ""

    def text(self, limit: int | None = NAMED) -> str:
        """Return one line that names at most `limit` subjects; all of them if None."""
        about = f": {len(self.subjects)}x: {listed(self.subjects, limit)}" if self.subjects else ""
        sentences = [f"{self.what}{about}", *([self.hint] if self.hint else [])]
        return " ".join(text if text.endswith((".", "?", "!")) else f"{text}." for text in sentences)

    def __str__(self) -> str:
        return self.text()


def summarize(findings: Iterable[Finding]) -> list[Remark]:
    """Return one remark per kind of problem, with all its files; commonest first."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.what, []).append(finding)
    return [
        Remark(what, tuple(dict.fromkeys(f.subject for f in group)), group[0].hint)
        for what, group in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def count_ids(mask: Mask) -> NDArray[np.int64]:
    """Return how many pixels of a mask ``[H, W]`` each of the 256 ids has, int64 ``[256]``."""
    return np.bincount(mask.ravel(), minlength=256).astype(np.int64)


@dataclass(slots=True)
class Survey:
    """Result of reading a source once.

    Args:
        problems: One remark per kind of problem; empty when the data are sound.
        notes: What is no problem but should not stay unsaid.
        samples: Number of samples that the source lists.
        images: Images that could be read.
        masks: Masks that could be read.
        pixels: int64 ``[256]``, pixels of each id over all masks that could be read.
        masks_with: int64 ``[256]``, masks in which an id occurs.
        sizes: ``(height, width)`` -> number of samples.
    """

    problems: list[Remark] = field(default_factory=list)
    notes: list[Remark] = field(default_factory=list)
    samples: int = 0
    images: int = 0
    masks: int = 0
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    masks_with: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, *, image: bool, size: tuple[int, int] | None, pixels: NDArray[np.int64] | None) -> None:
        """Count one sample.

        Args:
            image: Its image could be read.
            size: ``(height, width)``, None when neither file could be read.
            pixels: int64 ``[256]`` pixels per id, None without a readable mask.
        """
        self.images += image
        if size is not None:
            self.sizes[size] += 1
        if pixels is not None:
            self.masks += 1
            self.pixels += pixels
            self.masks_with += pixels > 0

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids that occur in the masks, ascending."""
        return tuple(int(i) for i in np.flatnonzero(self.pixels))
