"""The source ``cvat``: images with one XML file of shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError, iterparse

import numpy as np
from numpy.typing import NDArray

from genaug.errors import DataError
from genaug.labels import LabelSpace
from genaug.sources.config import FolderOptions
from genaug.sources.files import RefusedError
from genaug.sources.folder import FolderSource
from genaug.sources.listing import Entry, Listing
from genaug.sources.survey import Finding
from genaug.types import Mask
from genaug_formats.choice import chosen
from genaug_formats.config import CvatOptions
from genaug_formats.shapes import Shape, Tags, fill

_HEAD = 1 << 16  # bytes in which a file must show what it is
#: What holds no area (polyline, points, cuboid, skeleton) is refused; these are about the whole image.
_WITHOUT_SHAPE = {"tag", "attribute"}


class CvatSource(FolderSource):
    """A 'CVAT for images 1.1' export: ``annotations.xml`` beside the images.

    Polygons, boxes, ellipses and masks are drawn by ``z_order``, then in the file's order. A pixel belongs to a shape
    if its centre does. Of the XML only the shapes' attributes stay in memory. Document types are refused.

    Args:
        options: Where the files are and what labels mean.
        labels: Class table; its names are what CVAT's labels are looked up in.
        root: Folder that the paths of `options` refer to.
        ignore_unknown_ids: Ignore what shapes of unknown labels cover and note it; a problem otherwise.
    """

    def __init__(
        self, options: CvatOptions, labels: LabelSpace, *, root: Path, ignore_unknown_ids: bool = False
    ) -> None:
        folder = FolderOptions(images=options.images, gray=options.gray, max_pixels=options.max_pixels)
        super().__init__(folder, labels, root=root, ignore_unknown_ids=ignore_unknown_ids)
        self.tags = Tags(labels, options.tags, options.background)
        self.file = root / Path(options.annotations).expanduser()
        self.labeled = None if options.labeled is None else root / Path(options.labeled).expanduser()

    def list_entries(self) -> Listing:
        """Return the images that the XML names."""
        assert self.layout.images is not None
        listing = Listing()
        for name in self._images:
            sample_id = PurePosixPath(name).stem
            if sample_id in listing.entries:
                listing.findings.append(Finding("images that share a name", f"{sample_id} ({name})", "Rename one"))
                continue
            listing.entries[sample_id] = Entry(sample_id, self.layout.images / name, self.file)
        return chosen(listing, self.labeled, name=self._name)

    def read_entry_labels(self, entry: Entry, *, size: tuple[int, int] | None, notes: list[Finding]) -> Mask:
        """Draw the shapes of one image; the size that the XML gives must be the image's."""
        assert entry.image is not None
        assert self.layout.images is not None
        inside = entry.image.relative_to(self.layout.images).as_posix()
        told, attributes = self._images[inside]
        name = f"{self._name(self.file)}, image {inside}"
        if size is not None and size != told:
            subject = f"{name} ({told[1]}x{told[0]}, the image is {size[1]}x{size[0]})"
            raise RefusedError(Finding("the shapes were drawn on an image of another size", subject))
        if told[0] * told[1] > self.options.max_pixels:
            raise RefusedError(Finding(f"the picture is larger than max_pixels ({self.options.max_pixels})", name))
        shapes = [_shape(kind, values, f"{name} ({kind} {i})") for i, (kind, values) in enumerate(attributes, start=1)]
        return self.tags.draw(shapes, told, name=name, notes=notes if self.ignore_unknown_ids else None)

    @cached_property
    def _images(self) -> dict[str, tuple[tuple[int, int], list[tuple[str, dict[str, str]]]]]:
        """Image name -> size and shapes (kind, attributes), in drawing order."""
        images = {}
        for element in _image_elements(self.file):
            values = element.attrib
            try:
                name, size = values["name"], (int(values["height"]), int(values["width"]))
                if min(size) < 1 or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise ValueError(f"size {size}, name {name!r}")
                shapes = [(e.tag, dict(e.attrib)) for e in element if e.tag not in _WITHOUT_SHAPE]
                shapes.sort(key=lambda shape: int(shape[1].get("z_order", "0")))
            except (KeyError, ValueError) as error:
                raise DataError(f"an <image> cannot be understood: {error!r}", where=str(self.file)) from None
            if name in images:
                raise DataError(f"two <image> elements are called {name!r}", where=str(self.file))
            images[name] = size, shapes
        if not images:
            hint = "Export the task as 'CVAT for images 1.1'; 'CVAT for video' has tracks instead of images"
            raise DataError("the file has no <image>", where=str(self.file), hint=hint)
        return images


def _image_elements(path: Path) -> Iterator[Element]:
    """Yield the <image> elements one by one, each forgotten after its turn."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            # Entities need a document type, which CVAT never writes.
            if b"<annotations" not in head or b"<!DOCTYPE" in head.upper():
                hint = "Export the task as 'CVAT for images 1.1'"
                raise DataError(
                    "is no annotation file of CVAT, or declares a document type", where=str(path), hint=hint
                )
            file.seek(0)
            top: Element | None = None
            for event, element in iterparse(file, ["start", "end"]):
                top = element if top is None else top
                if event == "end" and element.tag == "image":
                    yield element
                    top.clear()
    except (OSError, ParseError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), hint="Export it again") from error


def _shape(kind: str, values: Mapping[str, str], place: str) -> Shape:
    cover = _KINDS.get(kind)
    if cover is None:
        hint = f"Draw it as one of {', '.join(sorted(_KINDS))}, or remove it"
        raise RefusedError(Finding(f"a <{kind}> covers no area", place, hint))
    try:
        return Shape(values["label"], cover(values), place)
    except (KeyError, ValueError) as error:
        raise RefusedError(Finding(f"a <{kind}> cannot be understood", f"{place}: {error!r}")) from None


def _numbers(values: Mapping[str, str], *names: str) -> list[float]:
    numbers = [float(values[name]) for name in names]
    if not np.isfinite(numbers).all():
        raise ValueError(f"{names} are no finite numbers")
    return numbers


def _polygon(values: Mapping[str, str]) -> Callable[[tuple[int, int]], NDArray[np.bool_]]:
    points = np.array([[float(v) for v in pair.split(",")] for pair in values["points"].split(";")])
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
        raise ValueError("fewer than three points, or points that are no 'x,y'")
    return partial(fill, points)


def _box(values: Mapping[str, str]) -> Callable[[tuple[int, int]], NDArray[np.bool_]]:
    left, top, right, bottom = _numbers(values, "xtl", "ytl", "xbr", "ybr")
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return partial(fill, _rotated(corners, corners.mean(axis=0), values))


def _ellipse(values: Mapping[str, str]) -> Callable[[tuple[int, int]], NDArray[np.bool_]]:
    x, y, half_width, half_height = _numbers(values, "cx", "cy", "rx", "ry")
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    outline = np.stack([x + half_width * np.cos(angles), y + half_height * np.sin(angles)], axis=1)
    return partial(fill, _rotated(outline, np.array([x, y]), values))


def _rotated(
    points: NDArray[np.float64], centre: NDArray[np.float64], values: Mapping[str, str]
) -> NDArray[np.float64]:
    """Turn points clockwise (y points down) by the attribute ``rotation``, in degrees."""
    angle = np.deg2rad(float(values.get("rotation", "0")))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    rotated: NDArray[np.float64] = points if angle == 0 else (points - centre) @ turn + centre
    return rotated


def _mask(values: Mapping[str, str]) -> Callable[[tuple[int, int]], NDArray[np.bool_]]:
    """Read runs of outside and inside in turn, row by row through a box of the image."""
    left, top, width, height = (int(values[name]) for name in ("left", "top", "width", "height"))
    runs = np.array([int(run) for run in values["rle"].split(",")])
    if min(left, top) < 0 or min(width, height) < 1 or (runs < 0).any() or runs.sum() != width * height:
        raise ValueError(f"runs of {runs.sum()} pixels in a box of {width}x{height}")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)

    def cover(size: tuple[int, int]) -> NDArray[np.bool_]:
        whole = np.zeros(size, bool)
        target = whole[top : top + height, left : left + width]
        target |= pixels[: target.shape[0], : target.shape[1]]
        return whole

    return cover


_KINDS = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}
