"""Near-duplicates by perceptual hash: among the synthetic images, and of real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from genaug.report.figures import Conclusion, Figures, Measured, Record, Show, Statistic, Table
from genaug.rng import Rng
from genaug.types import Image, Sample

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import DuplicatesOptions

BITS = 64
RADIUS = 6
_BLOCK = 1024  # images of one side of a block of distances: 4 MB
_SHOWN = 6

Hashes = NDArray[np.bool_]


def perceptual_hash(image: Image) -> Hashes:
    """Return ImageHash's ``phash`` of an image ``[H, W, 3]``, bool ``[64]``: signs of its low frequencies."""
    from imagehash import phash

    bits: Hashes = phash(PILImage.fromarray(image)).hash.ravel()
    return bits


def nearest(these: Hashes, those: Hashes | None = None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the nearest hash of every hash.

    Args:
        these: bool ``[N, 64]``.
        those: bool ``[M, 64]`` to look among; by default `these`, each but itself.

    Returns:
        int ``[N]`` positions, the smallest of equally near ones, and int ``[N]`` distances in bits; -1 and 65 where
        there is nothing to look among.
    """
    others = these if those is None else those
    place, distance = np.full(len(these), -1, np.intp), np.full(len(these), BITS + 1, np.intp)
    for rows, columns, block in _blocks(these, others):
        if those is None:
            same = np.arange(rows.start, rows.stop)[:, None] == np.arange(columns.start, columns.stop)
            block[same] = BITS + 1
        best = block.argmin(1)
        least = block[np.arange(len(block)), best]
        closer = least < distance[rows]
        distance[rows][closer] = least[closer]
        place[rows][closer] = best[closer] + columns.start
    return np.where(distance > BITS, -1, place), distance


def _blocks(a: Hashes, b: Hashes) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
    """Yield distances block by block: with bits as +1 and -1, the distance is ``(64 - a @ b.T) / 2``."""
    signs_a, signs_b = (np.where(bits, np.float32(1), np.float32(-1)) for bits in (a, b))
    for i in range(0, len(a), _BLOCK):
        for j in range(0, len(b), _BLOCK):
            rows, columns = slice(i, min(i + _BLOCK, len(a))), slice(j, min(j + _BLOCK, len(b)))
            yield rows, columns, (np.float32(BITS) - signs_a[rows] @ signs_b[columns].T) / np.float32(2)


class Duplicates(Figures):
    """Section ``duplicates``. Needs ImageHash.

    Args:
        radius: Hashes that differ in at most so many of their 64 bits are near-duplicates.
    """

    title = "Near-duplicates"
    about = (
        "Images whose perceptual hashes (64 bits) differ in few bits. A synthetic image near a real one may be a copy "
        "of it; many near one another mean less variety than there are images. Frames of a video are near-duplicates "
        "too, so compare with the real images among themselves."
    )

    def __init__(self, *, radius: int = RADIUS) -> None:
        self.radius = radius

    @classmethod
    def from_config(cls, options: DuplicatesOptions, context: BuildContext) -> Self:  # noqa: ARG003
        """Build from options."""
        return cls(radius=options.radius)

    def statistics(self) -> Sequence[Statistic]:
        """Return nothing: an image redrawn twice would be its own duplicate, so there is no bootstrap interval."""
        return []

    def measure(self, samples: Sequence[Sample]) -> Sequence[Record]:
        """Hash every image."""
        return [{"hash": perceptual_hash(s.image)} for s in samples if s.image is not None]

    def conclude(self, synthetic: Measured, real: Measured, rng: Rng) -> Conclusion:  # noqa: ARG002
        """Compare all hashes with all others."""
        made, own = synthetic.columns["hash"], real.columns["hash"]
        found = {
            "synthetic among themselves": (synthetic, synthetic, nearest(made)),
            "synthetic to real": (synthetic, real, nearest(made, own)),
            "real among themselves": (real, real, nearest(own)),
        }
        rows, figures = [], {}
        for name, (_, _, (place, distance)) in found.items():
            near = int(((distance <= self.radius) & (place >= 0)).sum())
            median = float(np.median(distance)) if (place >= 0).any() else None
            rows.append((name, near, near / len(place), median))
            figures[name] = {"near": near, "share": near / len(place), "median_distance": median}
        header = ("", f"images with one within {self.radius} bits", "share", "median distance to the nearest, bits")
        shows = [_closest(title, *found[name], self.radius) for title, name in (
            ("Nearest to a real image", "synthetic to real"), ("Nearest to one another", "synthetic among themselves"),
        )]  # fmt: skip
        table = Table("Images with a near-duplicate", header, tuple(rows))
        return Conclusion({"near_duplicates": figures}, (table,), tuple(s for s in shows if s.pictures))


def _closest(
    title: str, these: Measured, those: Measured, found: tuple[NDArray[np.intp], NDArray[np.intp]], radius: int
) -> Show:
    place, distance = found
    pictures = []
    shown: set[frozenset[str]] = set()
    other = "synthetic" if these is those else "real"
    for i in np.argsort(distance, kind="stable"):
        pair = frozenset((f"a{these.ids[i]}", f"{'a' if these is those else 'b'}{those.ids[place[i]]}"))
        if distance[i] > radius or place[i] < 0 or len(shown) == _SHOWN:
            break
        if pair not in shown:
            shown.add(pair)
            caption = f"{distance[i]} of {BITS} bits differ"
            pictures += [("synthetic", these.ids[i], caption), (other, those.ids[place[i]], caption)]
    return Show(title, tuple(pictures))  # type: ignore[arg-type]
