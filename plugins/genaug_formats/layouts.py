"""Sources whose files lie in known folders: VOC, Cityscapes, KITTI, ADE20K, COCO-Stuff."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genaug.errors import ConfigError
from genaug.labels import LabelSpace
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug.sources.survey import Finding
from genaug.types import Mask
from genaug_formats.config import (
    Ade20kOptions,
    CityscapesOptions,
    CocoStuffOptions,
    KittiOptions,
    VocOptions,
)
from genaug_formats.translation import TRAIN_IDS, Translation

_REDUCED = (
    "255 does not occur in ADE20K as released: these files were lowered by one before. Set reduce_zero_label to false, "
    "with labels: ade150-zero"
)


class LayoutSource(FolderSource):
    """Two folders whose places and file names a format fixes; what subclasses add is in `_folders`.

    Args:
        options: Where the files are and how they are read.
        labels: Class table that masks are checked against, after their ids were translated.
        root: Folder that the paths of `options` refer to.
        ignore_unknown_ids: Set ids outside the class table to the ignore index and note it; a problem otherwise.
    """

    def __init__(self, options: Any, labels: LabelSpace, *, root: Path, ignore_unknown_ids: bool = False) -> None:
        folders = {"labeled": options.labeled, **self._folders(options)}
        picture = {"gray": options.gray, "max_pixels": options.max_pixels}
        super().__init__(FolderOptions(**picture, **folders), labels, root=root, ignore_unknown_ids=ignore_unknown_ids)
        self.translation = self._translation(options)

    def read_labels(self, path: Path, *, size: tuple[int, int] | None, notes: list[Finding]) -> Mask:
        """Read one mask by index and translate its ids."""
        mask = super().read_labels(path, size=size, notes=notes)
        return mask if self.translation is None else self.translation(mask, name=self._name(path))

    def _folders(self, options: Any) -> dict[str, Any]:
        """Return the options of the source ``folder`` that find the files."""
        raise NotImplementedError

    def _translation(self, options: Any) -> Translation | None:  # noqa: ARG002
        """Return how ids in files become class ids; None where they are the same."""
        return None


class VocSource(LayoutSource):
    """Pascal VOC: ``JPEGImages``, palette masks in ``SegmentationClass``, lists in ``ImageSets/Segmentation``.

    A pixel's index in the palette is its class; 255 is the border that is not labelled.
    """

    def _folders(self, options: VocOptions) -> dict[str, Any]:
        root = options.root
        split = options.labeled or f"{root}/ImageSets/Segmentation/{options.split}.txt"
        return {
            "images": f"{root}/{options.images}",
            "masks": f"{root}/{options.masks}",
            "labeled": split,
            "color_map": options.color_map,
        }


class CityscapesSource(LayoutSource):
    """Cityscapes: ``leftImg8bit/<split>/<city>`` and ``gtFine/<split>/<city>``; ids are what files are called without
    their ending, as in ``aachen_000000_000019``.
    """

    def _folders(self, options: CityscapesOptions) -> dict[str, Any]:
        return {
            "images": f"{options.root}/leftImg8bit/{options.split}",
            "masks": f"{options.root}/{options.annotations}/{options.split}",
            "image_suffixes": ("_leftImg8bit.png",),
            "mask_suffix": f"_{options.annotations}_{options.files}.png",
            "recursive": True,
        }

    def _translation(self, options: CityscapesOptions) -> Translation | None:
        if options.ids == "trainIds" and options.files == "labelIds":
            return _train_ids(self.labels)
        table: dict[int, int | None] = {i: i for i in range(34)}
        if options.files == "labelTrainIds":
            table = {i: i for i in range(19)} | {255: None}
        elif self.labels.ignore_index < 34:
            table[self.labels.ignore_index] = None
        return Translation(table, self.labels, what=f"{options.files} of Cityscapes")


class KittiSource(LayoutSource):
    """KITTI's semantic benchmark, and sets in its form: ``training/image_2`` and ``training/semantic``."""

    def _folders(self, options: KittiOptions) -> dict[str, Any]:
        base = f"{options.root}/{options.split}"
        return {"images": f"{base}/{options.images}", "masks": f"{base}/{options.masks}"}

    def _translation(self, options: KittiOptions) -> Translation | None:
        return _train_ids(self.labels) if options.ids == "trainIds" else None


class Ade20kSource(LayoutSource):
    """ADE20K scene parsing: ``images/<split>`` and ``annotations/<split>``, ids 1..150 and 0 for unlabelled.

    Raises:
        ConfigError: ``reduce_zero_label`` and the class table contradict each other.
    """

    def _folders(self, options: Ade20kOptions) -> dict[str, Any]:
        return {
            "images": f"{options.root}/images/{options.split}",
            "masks": f"{options.root}/annotations/{options.split}",
        }

    def _translation(self, options: Ade20kOptions) -> Translation | None:
        if not options.reduce_zero_label:
            return None
        if self.labels.ignore_index == 0:
            raise ConfigError(
                "reduce_zero_label makes 0 a class, but the class table ignores 0: ids would be lowered without their "
                "names",
                where="data.reduce_zero_label",
                hint="Set it to false, or use labels: ade150-zero",
            )
        table = {0: None, **{i: i - 1 for i in range(1, 255) if i - 1 != self.labels.ignore_index}}
        return Translation(table, self.labels, what="ids of ADE20K as released", hints={255: _REDUCED})


class CocoStuffSource(LayoutSource):
    """COCO-Stuff's ``stuffthingmaps``: ids 0..181 are COCO's categories 1..182 less one, 255 is unlabelled."""

    def _folders(self, options: CocoStuffOptions) -> dict[str, Any]:
        return {"images": options.images, "masks": options.masks}

    def _translation(self, options: CocoStuffOptions) -> Translation | None:
        shift = 1 if options.ids == "category" else 0
        table = {255: None, **{i: i + shift for i in range(182)}}
        return Translation(table, self.labels, what="ids of COCO-Stuff (0..181, 255)")


def _train_ids(labels: LabelSpace) -> Translation:
    hints = {255: "255 only occurs where ids were mapped to trainIds before: read the files as released"}
    return Translation(TRAIN_IDS, labels, what="labelIds of Cityscapes (0..33)", hints=hints)
