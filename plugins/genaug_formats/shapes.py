"""Tagged shapes to masks: what labelme and CVAT have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genaug.errors import ConfigError, did_you_mean
from genaug.labels import LabelSpace
from genaug.sources.files import RefusedError
from genaug.sources.survey import Finding
from genaug.types import Mask


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape as it was drawn.

    Args:
        tag: What was drawn.
        cover: Returns the pixels it covers, bool ``[H, W]``, for an image of ``(height, width)``.
        place: Where it stands in the file, for reports.
    """

    tag: str
    cover: Callable[[tuple[int, int]], NDArray[np.bool_]]
    place: str


class Tags:
    """Tags in files to class ids.

    Args:
        labels: Class table; its names are what tags are looked up in.
        tags: Tag -> class name where they differ, None to ignore what the tag's shapes cover.
        background: Class of pixels under no shape; None to ignore them.

    Raises:
        ConfigError: Two classes share a name, or one of the names is no class.
    """

    def __init__(
        self, labels: LabelSpace, tags: Mapping[str, str | None] | None = None, background: str | None = None
    ) -> None:
        self.labels = labels
        names = class_ids(labels)
        for where, name in (("data.background", background), *((f"data.tags.{t}", n) for t, n in (tags or {}).items())):
            if name is not None and name not in names:
                raise ConfigError(f"{name!r} is no class", where=where, hint=did_you_mean(name, names))
        ignore = labels.ignore_index
        self.ids = names | {tag: ignore if name is None else names[name] for tag, name in (tags or {}).items()}
        self.background = ignore if background is None else names[background]

    def draw(self, shapes: Sequence[Shape], size: tuple[int, int], *, name: str, notes: list[Finding] | None) -> Mask:
        """Draw shapes over one another, later ones above earlier ones, as annotation tools do.

        Args:
            shapes: In order.
            size: ``(height, width)``.
            name: How reports call the file.
            notes: Where to tell of unknown tags whose shapes are then ignored; None to refuse them.

        Raises:
            RefusedError: A tag that is no class, or a shape that cannot be drawn.
        """
        findings = [
            Finding(f"the tag {tag!r} is not in the class table", name, self._advice(tag))
            for tag in dict.fromkeys(shape.tag for shape in shapes)
            if tag not in self.ids
        ]
        if findings and notes is None:
            raise RefusedError(*findings)
        told = "What its shapes cover is ignored, as the recipe's generator asks"
        (notes if notes is not None else []).extend(Finding(f.what, f.subject, told) for f in findings)
        mask = np.full(size, self.background, np.uint8)
        for shape in shapes:
            mask[shape.cover(size)] = self.ids.get(shape.tag, self.labels.ignore_index)
        return mask

    def _advice(self, tag: str) -> str:
        near = did_you_mean(tag, self.labels.names.values())
        end = "" if near.endswith("?") else "."
        return f"{near}{end} Set data.tags to {{{tag}: <class>}}, or to {{{tag}: null}} to ignore what its shapes cover"


def class_ids(labels: LabelSpace) -> dict[str, int]:
    """Return name -> id.

    Raises:
        ConfigError: Two classes share a name.
    """
    names: dict[str, int] = {}
    for class_id, name in labels.names.items():
        if name in names:
            found = f"ids {names[name]} and {class_id} share the name {name!r}"
            raise ConfigError(found, where="labels.names", hint="Here classes are told by name: give each its own")
        names[name] = class_id
    return names


def fill(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels whose centres lie inside a polygon (even-odd rule).

    Args:
        points: float ``[N, 2]``, x and y; pixel ``(row, column)`` spans ``column..column+1`` and ``row..row+1``.
        size: ``(height, width)``.
    """
    height, width = size
    flips = np.zeros((height, width + 1), np.int64)
    centres = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        rows = np.flatnonzero((centres >= min(y0, y1)) & (centres < max(y0, y1)))
        crossings = x0 + (centres[rows] - y0) * (x1 - x0) / (y1 - y0) if len(rows) else centres[rows]
        # Everything right of the crossing changes sides: the first column is the one whose centre is not left of it.
        np.add.at(flips, (rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)), 1)
    inside: NDArray[np.bool_] = np.cumsum(flips[:, :width], axis=1) % 2 == 1
    return inside
