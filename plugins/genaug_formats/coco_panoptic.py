"""The source ``coco-panoptic``: segments in RGB files, their categories in one JSON file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genaug.errors import DataError
from genaug.labels import LabelSpace
from genaug.sources.config import FolderOptions
from genaug.sources.files import RefusedError, read_image
from genaug.sources.folder import FolderSource
from genaug.sources.listing import Entry, Listing
from genaug.sources.survey import Finding, Remark, Survey, listed
from genaug.types import Image, Mask
from genaug_formats.choice import chosen
from genaug_formats.config import CocoPanopticOptions
from genaug_formats.shapes import class_ids

Segments = NDArray[np.int64]
_FORM = (
    "{images: [{id, file_name}], annotations: [{image_id, file_name, segments_info: [{id, category_id}]}], categories}"
)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the JSON file holds, without what nobody needs (areas, boxes, addresses).

    `pairs` are image and mask file names; `segments` by mask file name is int64 ``[N, 2]``, segment id and category.
    """

    pairs: tuple[tuple[str, str], ...]
    segments: Mapping[str, Segments]
    categories: Mapping[int, str]


class CocoPanopticSource(FolderSource):
    """COCO panoptic: a pixel's segment is ``R + 256 G + 65536 B``; the JSON says which category a segment has.

    Things and stuff alike become the class of their category; pixels of segment 0 are ignored. Pixels of a segment that
    the JSON does not name are an error.

    Args:
        options: Where the files are and how categories become classes.
        labels: Class table.
        root: Folder that the paths of `options` refer to.
        ignore_unknown_ids: Ignore segments of categories outside the class table and note it; a problem otherwise.
    """

    def __init__(
        self, options: CocoPanopticOptions, labels: LabelSpace, *, root: Path, ignore_unknown_ids: bool = False
    ) -> None:
        folder = FolderOptions(
            images=options.images, masks=options.masks, gray=options.gray, max_pixels=options.max_pixels
        )
        ignore = ignore_unknown_ids or options.others == "ignore"
        super().__init__(folder, labels, root=root, ignore_unknown_ids=ignore)
        self.file = root / Path(options.annotations).expanduser()
        self.labeled = None if options.labeled is None else root / Path(options.labeled).expanduser()
        self.names = class_ids(labels) if options.match == "name" else None

    def list_entries(self) -> Listing:
        """Return the images that have an annotation."""
        assert self.layout.images is not None
        assert self.layout.masks is not None
        listing = Listing()
        for image, mask in self._contents.pairs:
            sample_id = PurePosixPath(image).stem
            if sample_id in listing.entries:
                listing.findings.append(Finding("images that share a name", f"{sample_id} ({image})", "Rename one"))
                continue
            listing.entries[sample_id] = Entry(sample_id, self.layout.images / image, self.layout.masks / mask)
        return chosen(listing, self.labeled, name=self._name)

    def read_labels(self, path: Path, *, size: tuple[int, int] | None, notes: list[Finding]) -> Mask:  # noqa: ARG002
        """Read one PNG of segments and replace them by their classes."""
        name = self._name(path)
        if path.suffix.lower() != ".png":
            raise RefusedError(Finding("the file of segments is no PNG", name, "Only PNG keeps segment ids"))
        try:
            colors = read_image(path, name=name, gray=False, max_pixels=self.options.max_pixels)
        except RefusedError as error:
            hint = "Panoptic files are 8-bit RGB: the id of a segment is R + 256 G + 65536 B"
            raise RefusedError(*(Finding(f.what, f.subject, hint) for f in error.findings)) from None
        assert self.layout.masks is not None
        segments = self._contents.segments[path.relative_to(self.layout.masks).as_posix()]
        found, inverse = np.unique(segment_ids(colors), return_inverse=True)
        classes = {0: self.labels.ignore_index}
        classes |= {segment: self._class(category, name, notes) for segment, category in segments.tolist()}
        strange = [str(s) for s in found.tolist() if s not in classes]
        if strange:
            what = "the file has segments that the JSON does not name"
            raise RefusedError(
                Finding(what, f"{name} ({listed(strange)})", "The two files belong to different releases")
            )
        missing = sorted(set(segments[:, 0].tolist()) - set(found.tolist()))
        if missing:
            what = "the JSON names segments that no pixel has"
            notes.append(Finding(what, f"{name} ({listed([str(s) for s in missing])})"))
        table = np.array([classes[s] for s in found.tolist()], dtype=np.uint8)
        mask: Mask = table[inverse].reshape(colors.shape[:2])
        return mask

    def _class(self, category: int, name: str, notes: list[Finding]) -> int:
        """Return the class of a category; the ignore index for one that may be ignored."""
        told = f"{category} ({self._contents.categories.get(category, 'without name')})"
        if self.names is None:
            class_id = category if category in self.labels.names else None
            hint = "Name it in labels, set 'others: ignore', or 'match: name' if its name has another id there"
        else:
            class_id = self.names.get(self._contents.categories.get(category, ""))
            hint = "Name it in labels, or set 'others: ignore'"
        if class_id is not None:
            return class_id
        finding = Finding(f"category {told} is not in the class table", name, hint)
        if not self.ignore_unknown_ids:
            raise RefusedError(finding)
        notes.append(Finding(finding.what, name, "Its segments are ignored"))
        return self.labels.ignore_index

    def survey(self) -> Survey:
        """Read everything once; a class table numbered in another way than the categories is noted."""
        survey = super().survey()
        try:
            differ = self._renamed()
        except DataError:  # told among the problems
            return survey
        if differ:
            hint = "If the ids are not COCO's, set data.match to name; if you renamed the classes, all is well"
            survey.notes.append(Remark("no class has the name of its COCO category", differ, hint))
        return survey

    def _renamed(self) -> tuple[str, ...]:
        """Return how the names of shared ids differ; nothing if one of them is the same."""
        there, here = self._contents.categories, self.labels.names
        shared = sorted(here.keys() & there.keys()) if self.names is None else []
        if any(there[i] == here[i] for i in shared):
            return ()
        return tuple(f"{i} is {there[i]!r} there and {here[i]!r} here" for i in shared)

    @cached_property
    def _contents(self) -> _Contents:
        return _read(self.file)


def segment_ids(colors: Image) -> NDArray[np.int64]:
    """Return the segment of every pixel, int64 ``[H, W]``, of an RGB picture ``[H, W, 3]``."""
    wide = colors.astype(np.int64)
    return wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16


def _slim(table: dict[str, Any]) -> Any:
    """Drop what is not needed while the JSON is parsed: a segment becomes a pair of numbers."""
    if "category_id" in table and "segments_info" not in table:
        return table["id"], table["category_id"]
    if "segments_info" in table:
        table["segments_info"] = np.array(table["segments_info"], dtype=np.int64).reshape(-1, 2)
    return {key: value for key, value in table.items() if key in _KEPT}


_KEPT = {"id", "file_name", "image_id", "segments_info", "name", "images", "annotations", "categories"}


def _read(path: Path) -> _Contents:
    try:
        with path.open(encoding="utf-8") as file:
            data = json.load(file, object_hook=_slim)
        images = {image["id"]: str(image["file_name"]) for image in data["images"]}
        named = [(PurePosixPath(item["file_name"]).as_posix(), item) for item in data["annotations"]]
        segments = {name: item["segments_info"] for name, item in named}
        pairs = tuple((images[item["image_id"]], name) for name, item in named)
        categories = {int(item["id"]): str(item["name"]) for item in data["categories"]}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"is no COCO panoptic file: {error!r}", where=str(path), hint=f"It has {_FORM}") from error
    outside = [name for pair in pairs for name in pair if ".." in PurePosixPath(name).parts or name.startswith("/")]
    if outside or not pairs:
        found = f"names files outside its folders: {listed(outside)}" if outside else "has no annotation"
        raise DataError(found, where=str(path))
    if any(not isinstance(s, np.ndarray) for s in segments.values()):
        raise DataError("is no COCO panoptic file: an annotation has no segments_info", where=str(path))
    repeated = {
        "annotations that name one file of segments": [name for _, name in pairs],
        "images of one id": [str(image["id"]) for image in data["images"]],
        "segments of one id": [f"{name} ({s})" for name, table in segments.items() for s in table[:, 0].tolist()],
    }
    problems = [f"{what}: {listed(twice)}" for what, names in repeated.items() if (twice := _twice(names))]
    if problems:
        hint = "The later would count silently: remove one, or give it a name of its own"
        raise DataError("says things twice", problems=problems, where=str(path), hint=hint)
    return _Contents(pairs, segments, categories)


def _twice(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
