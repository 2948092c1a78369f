"""What reading a whole data set once has shown: its problems, told together, and its class statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from genaug.labels import LabelSpace
from genaug.types import Mask

NAMED = 3  # file names that a problem lists before it says "and N more"
#: What to do where 255 is a class.
FOREGROUND = "make it a class: names {0: ..., 255: ...}, ignore_index 254"
_SPARSE = 0.25  # where at most this share is labelled, there are scribbles or points rather than regions
_AHEAD = ((0, 1), (1, -1), (1, 0), (1, 1))  # y and x of the four neighbours that come later


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


def count_strokes(mask: Mask, ignore_index: int) -> NDArray[np.int64] | None:
    """Return how many strokes each of the 256 ids has in a sparse mask ``[H, W]``, int64 ``[256]``.

    A stroke is what is connected over edges and corners. None where more than a quarter of the pixels are labelled:
    what is connected there is a region.
    """
    labelled = mask != ignore_index
    if np.count_nonzero(labelled) > _SPARSE * mask.size:
        return None
    y, x = np.nonzero(labelled)
    index = np.full((mask.shape[0] + 2, mask.shape[1] + 2), -1)
    index[y + 1, x + 1] = nodes = np.arange(len(y))
    ids = mask[y, x]
    others = np.concatenate([index[y + 1 + dy, x + 1 + dx] for dy, dx in _AHEAD])
    here = np.tile(nodes, len(_AHEAD))[others >= 0]
    others = others[others >= 0]
    same = ids[here] == ids[others]
    here, others, root = here[same], others[same], nodes.copy()
    while len(here):  # hook every root to its smallest neighbour and cut paths short, until all is connected
        a, b = root[here], root[others]
        apart = a != b
        here, others, a, b = here[apart], others[apart], a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(root, root[root]):
            root = root[root]
    return np.bincount(ids[root == nodes], minlength=256).astype(np.int64)


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
        strokes: int64 ``[256]``, connected strokes of each id over the masks that are sparse themselves.
        sizes: ``(height, width)`` -> number of samples.
    """

    problems: list[Remark] = field(default_factory=list)
    notes: list[Remark] = field(default_factory=list)
    samples: int = 0
    images: int = 0
    masks: int = 0
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    masks_with: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    strokes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(
        self,
        *,
        image: bool,
        size: tuple[int, int] | None,
        pixels: NDArray[np.int64] | None,
        strokes: NDArray[np.int64] | None = None,
    ) -> None:
        """Count one sample.

        Args:
            image: Its image could be read.
            size: ``(height, width)``, None when neither file could be read.
            pixels: int64 ``[256]`` pixels per id, None without a readable mask.
            strokes: What `count_strokes` says of the mask.
        """
        self.images += image
        if size is not None:
            self.sizes[size] += 1
        if pixels is not None:
            self.masks += 1
            self.pixels += pixels
            self.masks_with += pixels > 0
        if strokes is not None:
            self.strokes += strokes

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids that occur in the masks, ascending."""
        return tuple(int(i) for i in np.flatnonzero(self.pixels))

    def is_sparse(self, ignore_index: int) -> bool:
        """Whether the masks are scribbles: most pixels are ignored, though not all."""
        total = self.pixels.sum()
        return bool(0 < total - self.pixels[ignore_index] <= _SPARSE * total)

    def note_single_class(self, subjects: Sequence[str], ignore_index: int) -> None:
        """Note the masks with one class only, if the set is sparse; a dense mask of one class is nothing unusual."""
        if subjects and self.is_sparse(ignore_index):
            hint = "Beside the other classes they teach little; scribble on whatever else is in the picture"
            self.notes.append(Remark("scribbles of one class only", tuple(subjects), hint))


def binary(survey: Survey, labels: LabelSpace) -> list[Remark]:
    """Catch black-and-white masks, whose white is the foreground and not the ignore index it collides with."""
    if survey.ids != (0, 255) or labels.ignore_index != 255 or len(labels.ids) < 2:
        return []
    share = survey.pixels[255] / survey.pixels.sum()
    what = (
        f"the masks hold 0 and 255 only, and 255 ({share:.0%} of the pixels) is the ignore index: every pixel of "
        "it would be left out of training, and one class would remain"
    )
    return [Remark(what, hint=f"If 255 means the foreground, {FOREGROUND}")]
