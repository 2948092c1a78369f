"""The source ``labelme``: images with a JSON file of shapes each."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray

from genaug.labels import LabelSpace
from genaug.sources.config import FolderOptions
from genaug.sources.files import RefusedError
from genaug.sources.folder import FolderSource
from genaug.sources.survey import Finding
from genaug.types import Mask
from genaug_formats.config import LabelmeOptions
from genaug_formats.shapes import Shape, Tags

Points = list[tuple[float, float]]
Cover = Callable[[tuple[int, int]], NDArray[np.bool_]]


class LabelmeSource(FolderSource):
    """labelme: beside ``a.jpg`` lies ``a.json`` with polygons, rectangles, circles and masks.

    Shapes are drawn in the file's order, later ones above earlier ones, with Pillow's polygons, as labelme's own
    converters do. Lines and points cover no area and are refused.

    Args:
        options: Where the files are and what tags mean.
        labels: Class table; its names are what tags are looked up in.
        root: Folder that the paths of `options` refer to.
        ignore_unknown_ids: Ignore what shapes of unknown tags cover and note it; a problem otherwise.
    """

    def __init__(
        self, options: LabelmeOptions, labels: LabelSpace, *, root: Path, ignore_unknown_ids: bool = False
    ) -> None:
        folder = FolderOptions(
            images=options.images,
            masks=options.annotations or options.images,
            labeled=options.labeled,
            image_suffixes=options.image_suffixes,
            mask_suffix=".json",
            recursive=options.recursive,
            gray=options.gray,
            max_pixels=options.max_pixels,
        )
        super().__init__(folder, labels, root=root, ignore_unknown_ids=ignore_unknown_ids)
        self.tags = Tags(labels, options.tags, options.background)

    def read_labels(self, path: Path, *, size: tuple[int, int] | None, notes: list[Finding]) -> Mask:
        """Read and draw the shapes of one image; the file's own size counts where the image cannot be read."""
        name = self._name(path)
        data = _read(path, name)
        height, width = data.get("imageHeight"), data.get("imageWidth")
        told = (
            (height, width) if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0 else None
        )
        if size is not None and told is not None and told != size:
            subject = f"{name} ({told[1]}x{told[0]}, the image is {size[1]}x{size[0]})"
            raise RefusedError(Finding("the shapes were drawn on an image of another size", subject))
        size = size or told
        if size is None or size[0] * size[1] > self.options.max_pixels:
            raise RefusedError(Finding("the file gives no usable imageHeight and imageWidth", name))
        shapes = [_shape(shape, f"{name} (shape {i})") for i, shape in enumerate(data["shapes"], start=1)]
        return self.tags.draw(shapes, size, name=name, notes=notes if self.ignore_unknown_ids else None)


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RefusedError(Finding("the file cannot be read", f"{name} ({error})", "Save it again")) from None
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        hint = "Write {imageHeight, imageWidth, shapes: [{label, shape_type, points}, ...]}"
        raise RefusedError(Finding("the file is not labelme's: it has no list 'shapes'", name, hint))
    return data


def _shape(shape: Any, place: str) -> Shape:
    try:
        tag, kind = shape["label"], shape.get("shape_type") or "polygon"
        points = [(float(x), float(y)) for x, y in shape["points"]]
        if not isinstance(tag, str) or not np.isfinite(points).all():
            raise ValueError("a label that is no text, or points that are no numbers")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise RefusedError(Finding("a shape has no label or no points", f"{place}: {error!r}")) from None
    if kind == "mask":
        return Shape(tag, _pasted(shape, points, place), place)
    needed, draw = _KINDS.get(kind, (0, None))
    if draw is None:
        hint = f"Draw it as one of {', '.join(sorted([*_KINDS, 'mask']))}, or remove it"
        raise RefusedError(Finding(f"a shape of type {kind!r} covers no area", place, hint))
    if len(points) < needed or (kind != "polygon" and len(points) > needed):
        raise RefusedError(Finding(f"a {kind} of {len(points)} points", place, f"A {kind} has {needed} points"))
    return Shape(tag, partial(_drawn, draw, points), place)


def _drawn(
    draw: Callable[[PIL.ImageDraw.ImageDraw, Points], None], points: Points, size: tuple[int, int]
) -> NDArray[np.bool_]:
    picture = PIL.Image.new("L", size[::-1])
    draw(PIL.ImageDraw.Draw(picture), points)
    return np.asarray(picture) > 0


def _circle(canvas: PIL.ImageDraw.ImageDraw, points: Points) -> None:
    (x, y), (edge_x, edge_y) = points
    radius = float(np.hypot(x - edge_x, y - edge_y))
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)


def _rectangle(canvas: PIL.ImageDraw.ImageDraw, points: Points) -> None:
    (x0, y0), (x1, y1) = points
    canvas.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), fill=1, outline=1)


def _polygon(canvas: PIL.ImageDraw.ImageDraw, points: Points) -> None:
    canvas.polygon(points, fill=1, outline=1)


# Name -> points that it needs, and how it is drawn.
_KINDS: dict[str, tuple[int, Callable[[PIL.ImageDraw.ImageDraw, Points], None]]] = {
    "polygon": (3, _polygon),
    "rectangle": (2, _rectangle),
    "circle": (2, _circle),
}


def _pasted(shape: Mapping[str, Any], points: Points, place: str) -> Cover:
    """Return the cover of a mask: a PNG in base64, its top left corner at the first point."""
    try:
        with PIL.Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True))) as picture:
            pixels = np.asarray(picture) > 0
        (x, y), _ = points
    except (KeyError, TypeError, ValueError, OSError, SyntaxError, binascii.Error) as error:
        raise RefusedError(Finding("a shape's mask cannot be read", f"{place}: {error!r}")) from None
    if pixels.ndim != 2:
        raise RefusedError(Finding("a shape's mask is no picture of one channel", place))
    left, top = round(x), round(y)

    def cover(size: tuple[int, int]) -> NDArray[np.bool_]:
        whole = np.zeros(size, bool)
        part = pixels[max(-top, 0) :, max(-left, 0) :]
        target = whole[max(top, 0) : max(top + pixels.shape[0], 0), max(left, 0) : max(left + pixels.shape[1], 0)]
        target |= part[: target.shape[0], : target.shape[1]]
        return whole

    return cover
