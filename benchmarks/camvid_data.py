"""CamVid for the benchmarks: images and masks at 120x90, and splits by blocks of time.

The data is non-commercial and never shipped; ``--data`` names its folder (its README says where it comes from).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

#: What to train and measure at: width, height.
SIZE = (120, 90)
CLASSES = 11
IGNORE = 255


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames of CamVid.

    Args:
        stems: File stems, in time order within a drive.
        images: uint8 ``[N, 90, 120, 3]``.
        masks: uint8 ``[N, 90, 120]``, 255 = void.
    """

    stems: tuple[str, ...]
    images: np.ndarray
    masks: np.ndarray

    def pick(self, stems: list[str]) -> Frames:
        """Return the frames with these stems, in this order."""
        rows = [self.stems.index(s) for s in stems]
        return Frames(tuple(stems), self.images[rows], self.masks[rows])


def read(data: Path, part: str = "train") -> Frames:
    """Read all frames of a part, reduced: images by area averaging, masks by nearest neighbour."""
    stems = (data / "splits" / f"{part}.txt").read_text().split()
    images, masks = [], []
    for stem in stems:
        with Image.open(data / part / "images" / f"{stem}.jpg") as image:
            images.append(np.asarray(image.resize(SIZE, Image.Resampling.BOX)))
        with Image.open(data / part / "masks" / f"{stem}.png") as mask:
            masks.append(np.asarray(mask.resize(SIZE, Image.Resampling.NEAREST)))
    return Frames(tuple(stems), np.stack(images), np.stack(masks))


def blocks(frames: Frames) -> tuple[set[str], set[str]]:
    """Return (near, held out): the last fifth of every drive, and the 3 frames (about 3 s) before it.

    Neighbouring frames show the same place, so the near ones are neither trained on nor measured.
    """
    near: set[str] = set()
    held_out: set[str] = set()
    for drive in sorted({s[:6] for s in frames.stems}):
        stems = sorted(s for s in frames.stems if s.startswith(drive))
        cut = len(stems) * 4 // 5
        near |= set(stems[cut - 3 : cut])
        held_out |= set(stems[cut:])
    return near, held_out


def split(data: Path, frames: Frames, seed: int, share: str = "1_16") -> tuple[list[str], list[str]]:
    """Return (labelled stems, held-out stems): the data's own list less what `blocks` names, and the blocks."""
    near, held_out = blocks(frames)
    listed = (data / "splits" / share / f"seed{seed}" / "labeled.txt").read_text().split()
    return [s for s in listed if s not in near | held_out], sorted(held_out)
