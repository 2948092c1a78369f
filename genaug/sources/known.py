"""Data sets that everybody has, told by their folders: which source reads them, which class table is theirs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_VOC = re.compile(r"VOC(dev)?20\d\d", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KnownSet:
    """A data set in its published form.

    Args:
        title: What people call it.
        root: Its folder, for the option ``root``.
        labels: Name of its class table.
        data: ``format`` and the other options of its source.
        comments: What the reader of a proposed recipe should know, a line each.
    """

    title: str
    root: Path
    labels: str
    data: dict[str, Any]
    comments: tuple[str, ...]


def find_known(root: Path, formats: Collection[str]) -> KnownSet | None:
    """Return the known data set in `root` or a folder directly below it, None if there is none.

    Args:
        root: Where to look.
        formats: Names of the sources there are; sets that need another are passed over.
    """
    if not root.is_dir():
        return None
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        for known in (_cityscapes(folder), _ade20k(folder), _voc(folder)):
            if known is not None and known.data["format"] in formats:
                return known
    return None


def _cityscapes(folder: Path) -> KnownSet | None:
    masks = folder / "gtFine/train"
    if not (folder / "leftImg8bit/train").is_dir() or not _any(masks.glob("*/*_gtFine_labelIds.png")):
        return None
    data = {"format": "cityscapes", "split": "train", "ids": "trainIds"}
    comment = "labelIds are mapped to the 19 classes of evaluation as they are read; 'ids: labelIds' keeps all 34."
    return KnownSet("Cityscapes", folder, "cityscapes19", data, (comment,))


def _ade20k(folder: Path) -> KnownSet | None:
    told = folder.name == "ADEChallengeData2016" or (folder / "objectInfo150.txt").is_file()
    if not told or not all((folder / kind / "training").is_dir() for kind in ("images", "annotations")):
        return None
    data = {"format": "ade20k", "split": "training", "reduce_zero_label": False}
    comment = "Ids as released: 0 is unlabelled. For 0 to 149: 'reduce_zero_label: true' with labels: ade150-zero."
    return KnownSet("ADE20K", folder, "ade150", data, (comment,))


def _voc(folder: Path) -> KnownSet | None:
    parts = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/train.txt")
    # Many data sets lie in VOC's folders without having its classes; the name of the year tells.
    if not _VOC.fullmatch(folder.name) or not all((folder / part).exists() for part in parts):
        return None
    comment = "Masks are palette files, read by index. The list is ImageSets/Segmentation/train.txt."
    return KnownSet("Pascal VOC", folder, "voc21", {"format": "voc", "split": "train"}, (comment,))


def _any(paths: Iterator[Path]) -> bool:
    return next(paths, None) is not None
