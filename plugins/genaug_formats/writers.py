"""Writers that need no further library: folders, VOC, COCO panoptic, text lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL.Image

from genaug.export import SampleSet, Writer
from genaug.store.files import encode_mask
from genaug.types import Image, Mask, Sample
from genaug_formats.encoding import Format, palette_mask_bytes, picture_bytes


class PictureWriter(Writer):
    """Keeps the options of images.

    Args:
        image_format: ``png`` or ``jpg``.
        quality: Of jpg, 1 to 100.
    """

    def __init__(self, *, image_format: Format = "png", quality: int = 95) -> None:
        self.image_format: Format = image_format
        self.quality = quality

    def picture(self, sample: Sample, what: SampleSet) -> bytes:
        """Return the image's file."""
        assert sample.image is not None  # `genaug.export` sees to that
        return picture_bytes(sample.image, self.image_format, self.quality, synthetic=what.synthetic)


class ShardWriter(PictureWriter):
    """Keeps the options of formats that put many samples into one file.

    Args:
        image_format: ``png`` or ``jpg``.
        quality: Of jpg.
        split: What file names start with.
        samples_per_shard: Samples of a file.
    """

    def __init__(
        self,
        *,
        image_format: Format = "png",
        quality: int = 95,
        split: str = "train",
        samples_per_shard: int = 1000,
    ) -> None:
        super().__init__(image_format=image_format, quality=quality)
        self.split, self.samples_per_shard = split, samples_per_shard


class FolderWriter(PictureWriter):
    """``images/<id>.png`` and ``masks/<id>.png``; what the source ``folder`` reads without further options."""

    def write(self, samples: Iterator[Sample], folder: Path, what: SampleSet) -> None:
        """Write all samples into `folder`."""
        images, masks = _made(folder / "images"), _made(folder / "masks")
        for sample in samples:
            assert sample.mask is not None
            (images / f"{sample.id}.{self.image_format}").write_bytes(self.picture(sample, what))
            (masks / f"{sample.id}.png").write_bytes(encode_mask(sample.mask))


class VocWriter(PictureWriter):
    """Pascal VOC's folders. The ignore index is written as it is; VOC's own is 255.

    Args:
        image_format: ``png`` or ``jpg``.
        quality: Of jpg.
        split: Name of the list.
        palette: Write palette files. Tools that read masks with ``convert("L")`` or as gray get colours' brightness out
            of them (ids 0, 1, 15, 255 become 0, 38, 147, 220) and need False.
    """

    def __init__(
        self, *, image_format: Format = "jpg", quality: int = 95, split: str = "train", palette: bool = True
    ) -> None:
        super().__init__(image_format=image_format, quality=quality)
        self.split, self.palette = split, palette

    def write(self, samples: Iterator[Sample], folder: Path, what: SampleSet) -> None:
        """Write all samples into `folder`."""
        images, masks = _made(folder / "JPEGImages"), _made(folder / "SegmentationClass")
        with (_made(folder / "ImageSets/Segmentation") / f"{self.split}.txt").open("w", encoding="utf-8") as lines:
            for sample in samples:
                assert sample.mask is not None
                mask = palette_mask_bytes(sample.mask, what.labels) if self.palette else encode_mask(sample.mask)
                (images / f"{sample.id}.{self.image_format}").write_bytes(self.picture(sample, what))
                (masks / f"{sample.id}.png").write_bytes(mask)
                lines.write(f"{sample.id}\n")


class TextListWriter(PictureWriter):
    """``images``, ``masks`` and a list of ``images/a.png masks/a.png``, ``None`` for a sample without mask.

    Names that hold spaces are separated by a tab, which readers that split at any white space do not understand.

    Args:
        image_format: ``png`` or ``jpg``.
        quality: Of jpg.
        list: File name of the list.
    """

    takes_unlabelled = True

    def __init__(self, *, image_format: Format = "png", quality: int = 95, list: str = "labeled.txt") -> None:
        super().__init__(image_format=image_format, quality=quality)
        self.list = list

    def write(self, samples: Iterator[Sample], folder: Path, what: SampleSet) -> None:
        """Write all samples into `folder`."""
        _made(folder / "images"), _made(folder / "masks")
        with (folder / self.list).open("w", encoding="utf-8") as lines:
            for sample in samples:
                image, mask = f"images/{sample.id}.{self.image_format}", "None"
                (folder / image).write_bytes(self.picture(sample, what))
                if sample.mask is not None:
                    mask = f"masks/{sample.id}.png"
                    (folder / mask).write_bytes(encode_mask(sample.mask))
                lines.write(f"{image}{chr(9) if ' ' in image else ' '}{mask}\n")


class CocoPanopticWriter(PictureWriter):
    """COCO panoptic: ``<split>/``, ``annotations/panoptic_<split>/`` and ``annotations/panoptic_<split>.json``.

    A mask says nothing of instances, so every class of an image is one segment, and every category is stuff
    (``isthing`` 0). A segment's id is its class's plus one, since 0 means unlabelled. The JSON is written as samples
    come.

    Args:
        image_format: ``png`` or ``jpg``.
        quality: Of jpg.
        split: Name in folders and files.
        offset: What is added to class ids to make category ids. Where it is not 0, the source ``coco-panoptic`` reads
            the result with ``match: name``.
    """

    def __init__(
        self, *, image_format: Format = "png", quality: int = 95, split: str = "train", offset: int = 0
    ) -> None:
        super().__init__(image_format=image_format, quality=quality)
        self.split, self.offset = split, offset

    def write(self, samples: Iterator[Sample], folder: Path, what: SampleSet) -> None:
        """Write all samples into `folder`."""
        images, masks = _made(folder / self.split), _made(folder / f"annotations/panoptic_{self.split}")
        names = what.labels.names
        head = {
            "info": {"description": f"{what.title}, exported by genaug", "synthetic": what.synthetic},
            "licenses": [],
            "categories": [
                {
                    "id": i + self.offset,
                    "name": n,
                    "supercategory": n,
                    "isthing": 0,
                    "color": list(what.labels.color(i)),
                }
                for i, n in names.items()
            ],
        }
        place = folder / f"annotations/panoptic_{self.split}.json"
        rest = place.with_suffix(".images")  # the list that follows the annotations, until they are all written
        with place.open("w", encoding="utf-8") as file, rest.open("w", encoding="utf-8") as listed:
            file.write(f'{json.dumps(head, ensure_ascii=False)[:-1]}, "annotations": [')
            for number, sample in enumerate(samples, start=1):
                assert sample.mask is not None
                image, mask = f"{sample.id}.{self.image_format}", f"{sample.id}.png"
                colors, segments = panoptic(sample.mask, what.labels.ignore_index, offset=self.offset)
                (images / image).write_bytes(self.picture(sample, what))
                PIL.Image.fromarray(colors).save(masks / mask, "PNG")
                height, width = sample.size
                _append(listed, number, {"id": number, "file_name": image, "height": height, "width": width})
                _append(file, number, {"image_id": number, "file_name": mask, "segments_info": segments})
            file.write('\n], "images": [')
            listed.close()
            with rest.open(encoding="utf-8") as lines:
                file.writelines(lines)
            file.write("\n]}\n")
        rest.unlink()


def panoptic(mask: Mask, ignore_index: int, *, offset: int = 0) -> tuple[Image, list[dict[str, Any]]]:
    """Return a mask ``[H, W]`` as COCO has it: colours ``[H, W, 3]`` of segments, and ``segments_info``.

    Boxes are ``[x, y, width, height]`` in pixels.
    """
    segments = np.where(mask == ignore_index, 0, mask.astype(np.uint16) + 1)
    colors = np.stack([segments & 255, segments >> 8, np.zeros_like(segments)], axis=-1).astype(np.uint8)
    described = []
    for segment in np.unique(segments).tolist():
        if segment == 0:
            continue
        covered = segments == segment
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        top, left = int(rows[0]), int(columns[0])
        described.append(
            {
                "id": segment,
                "category_id": segment - 1 + offset,
                "area": int(covered.sum()),
                "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                "iscrowd": 0,
            }
        )
    return colors, described


def _append(file: IO[str], number: int, item: dict[str, Any]) -> None:
    file.write(f"{',' if number > 1 else ''}\n{json.dumps(item, ensure_ascii=False)}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
