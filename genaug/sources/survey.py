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


@dataclass(frozen=True, slots=True)
class Strokes:
    """The strokes of a sparse mask ``[H, W]``: what is connected over edges and corners.

    Args:
        y: Row of every labelled pixel, int64 ``[N]``.
        x: Its column.
        ids: Its class id, uint8 ``[N]``.
        first: Number of the first pixel of its stroke, int64 ``[N]``.
    """

    y: NDArray[np.int64]
    x: NDArray[np.int64]
    ids: NDArray[np.uint8]
    first: NDArray[np.int64]

    def count(self, wanted: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Return how many strokes each of the 256 ids has, int64 ``[256]``.

        Args:
            wanted: bool ``[N]``; only strokes are counted of which it has a pixel. None counts all.
        """
        firsts = np.unique(self.first if wanted is None else self.first[wanted])
        return np.bincount(self.ids[firsts], minlength=256).astype(np.int64)

    def lost(self, shape: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return which pixels are of strokes of which nothing is left at `size`, by nearest neighbour: bool ``[N]``.

        Args:
            shape: ``(height, width)`` of the mask.
            size: What it is resized to.
        """
        rows, columns = (picked(*sides) for sides in zip(shape, size, strict=True))
        left = np.zeros(len(self.ids), np.bool_)
        left[self.first[rows[self.y] & columns[self.x]]] = True
        return ~left[self.first]


def find_strokes(mask: Mask, ignore_index: int) -> Strokes | None:
    """Return the strokes of a mask ``[H, W]``.

    None where more than a quarter of the pixels are labelled: what is connected there is a region.
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
    return Strokes(y, x, ids, root)


@dataclass(frozen=True, slots=True)
class Lost:
    """What a mask loses when it is resized by nearest neighbour.

    Args:
        strokes: int64 ``[256]``, strokes of each id of which no pixel is left; none in a mask that is not sparse.
        classes: Ids of which no pixel is left, ascending.
    """

    strokes: NDArray[np.int64]
    classes: tuple[int, ...]


def count_lost(mask: Mask, strokes: Strokes | None, size: tuple[int, int]) -> Lost:
    """Return what a mask ``[H, W]`` loses at `size`, ``(height, width)``.

    Args:
        mask: The mask. The ignore index may be lost too.
        strokes: What `find_strokes` says of it.
        size: What it is resized to.
    """
    rows, columns = (picked(*sides) for sides in zip(mask.shape, size, strict=True))
    lost = np.zeros(256, np.int64) if strokes is None else strokes.count(strokes.lost(mask.shape, size))
    gone = (count_ids(mask) > 0) & (count_ids(mask[np.ix_(rows, columns)]) == 0)
    return Lost(lost, tuple(int(i) for i in np.flatnonzero(gone)))


def picked(side: int, target: int) -> NDArray[np.bool_]:
    """Return which of `side` rows nearest neighbour takes for `target`, as torch's interpolate: bool ``[side]``."""
    step = np.float32(side) / np.float32(target)  # in float32, which decides where a product is nearly whole
    rows = np.floor(np.arange(target, dtype=np.float32) * step).astype(np.int64)
    picked = np.zeros(side, np.bool_)
    picked[np.minimum(rows, side - 1)] = True
    return picked


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
        lost_strokes: int64 ``[256]``, those of `strokes` of which nothing is left at the size that a generator sees;
            None where there is no such size (`Source.seen_at`).
        lost: Mask -> ids of the classes of which nothing is left, likewise.
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
    lost_strokes: NDArray[np.int64] | None = None
    lost: dict[str, tuple[int, ...]] = field(default_factory=dict)
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
            strokes: int64 ``[256]`` strokes per id; None without a sparse mask.
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

    def add_lost(self, subject: str, lost: Lost) -> None:
        """Count what the mask called `subject` loses."""
        self.lost_strokes = lost.strokes + (0 if self.lost_strokes is None else self.lost_strokes)
        if lost.classes:
            self.lost[subject] = lost.classes

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

    def note_lost(self, labels: LabelSpace) -> None:
        """Note the masks of which whole classes are lost at the size that a generator sees them at."""
        about = ((name, [labels.names[i] for i in ids if i in labels.names]) for name, ids in self.lost.items())
        subjects = tuple(f"{name} ({', '.join(classes)})" for name, classes in about if classes)
        if subjects:
            what = "classes of which no pixel is left at the size of the images to make"
            hint = "They are no labels of those images. Draw wider strokes, or set a larger generator.resolution"
            self.notes.append(Remark(what, subjects, hint))


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
