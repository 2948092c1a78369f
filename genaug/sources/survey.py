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
        what: The problem, as a sentence without its full stop; findings of equal `what` are told in one line.
        subject: The file or sample, with details in brackets.
        hint: What to do, without its full stop.
    """

    what: str
    subject: str
    hint: str = ""


def listed(subjects: Sequence[str]) -> str:
    """Return ``'a, b, c and 9 more'``."""
    more = f" and {len(subjects) - NAMED} more" if len(subjects) > NAMED else ""
    return ", ".join(subjects[:NAMED]) + more


def summarize(findings: Iterable[Finding]) -> list[str]:
    """Return one line per kind of problem, with its count, the first names and what to do; commonest first."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.what, []).append(finding)
    lines = []
    for what, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        subjects = list(dict.fromkeys(f.subject for f in group))
        hint = f". {group[0].hint}" if group[0].hint else ""
        lines.append(f"{what}: {len(subjects)}x: {listed(subjects)}{hint}.")
    return lines


def count_ids(mask: Mask) -> NDArray[np.int64]:
    """Return how many pixels of a mask ``[H, W]`` each of the 256 ids has, int64 ``[256]``."""
    return np.bincount(mask.ravel(), minlength=256).astype(np.int64)


@dataclass(slots=True)
class Survey:
    """Result of reading a source once.

    Args:
        problems: One line per kind of problem, with file names; empty when the data are sound.
        samples: Number of samples that the source lists.
        images: Images that could be read.
        masks: Masks that could be read.
        pixels: int64 ``[256]``, pixels of each id over all masks that could be read.
        masks_with: int64 ``[256]``, masks in which an id occurs.
        sizes: ``(height, width)`` -> number of samples.
    """

    problems: list[str] = field(default_factory=list)
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
