"""The source ``scribblesup``: images with strokes in XML files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from genaug.errors import ConfigError, did_you_mean
from genaug.labels import LabelSpace
from genaug.sources.config import FolderOptions
from genaug.sources.files import RefusedError
from genaug.sources.folder import FolderSource
from genaug.sources.survey import Finding
from genaug.types import Mask
from genaug_scribbles.annotation import Annotation, TaggedStroke, read_annotation
from genaug_scribbles.config import ScribbleSupOptions
from genaug_scribbles.strokes import Points, brush, line, painted

if TYPE_CHECKING:
    from genaug.recipe import BuildContext

_AT_ONCE = 256  # points

#: What ScribbleSup calls some classes of Pascal VOC, whose names are written with or without spaces.
_VOC = {
    "plane": "aeroplane",
    "bike": "bicycle",
    "table": "diningtable",
    "plant": "pottedplant",
    "monitor": "tvmonitor",
}


class ScribbleSupSource(FolderSource):
    """Images, and scribbles on them as ScribbleSup is published: an XML file for every image.

    Every stroke is a list of points; the line through them is drawn `stroke_width` pixels wide with a round brush,
    everything else is ignored. Where strokes of two classes cross nobody knows which is meant: that is an error unless
    the options say otherwise, and never decided by the order of the strokes, as other converters do.

    Args:
        options: Where the files are and how strokes are read and drawn.
        labels: Class table; its names are what the tags are looked up in.
        root: Folder that the paths of `options` refer to.
        ignore_unknown_ids: Leave strokes of unknown tags out and note it; a problem otherwise.

    Raises:
        ConfigError: Two classes share a name, or ``tags`` names a class that there is not.
    """

    def __init__(
        self, options: ScribbleSupOptions, labels: LabelSpace, *, root: Path, ignore_unknown_ids: bool = False
    ) -> None:
        folder = FolderOptions(
            images=options.images,
            masks=options.annotations,
            labeled=options.labeled,
            image_suffixes=options.image_suffixes,
            mask_suffix=options.annotation_suffix,
            recursive=options.recursive,
            gray=options.gray,
            max_pixels=options.max_pixels,
        )
        super().__init__(folder, labels, root=root, ignore_unknown_ids=ignore_unknown_ids)
        self.drawing = options
        self._ids: dict[str, int | None] = {}
        for class_id, name in labels.names.items():
            if name in self._ids:
                found = f"ids {self._ids[name]} and {class_id} share the name {name!r}"
                raise ConfigError(found, where="labels.names", hint="Strokes are told by name: give each its own")
            self._ids[name] = class_id
        known = dict(self._ids)
        for tag, target in options.tags.items():
            if target is not None and target not in known:
                raise ConfigError(
                    f"{target!r} is no class",
                    where=f"data.tags.{tag}",
                    hint=did_you_mean(target, labels.names.values()),
                )
            self._ids[tag] = None if target is None else known[target]

    @classmethod
    def from_config(cls, options: ScribbleSupOptions, context: BuildContext) -> Self:  # type: ignore[override]
        """Build from a recipe."""
        return cls(options, context.labels, root=context.root, ignore_unknown_ids=context.ignore_unknown_ids)

    def read_labels(self, path: Path, *, size: tuple[int, int] | None, notes: list[Finding]) -> Mask:
        """Read and draw the strokes of one image; the file's own size counts where the image cannot be read."""
        name = self._name(path)
        annotation = read_annotation(path, name=name)
        findings = [*self._wrong_tags(annotation, name, notes), *_wrong_size(annotation, size, name)]
        size = size or annotation.size
        if size is not None and not findings:
            findings += self._wrong_points(annotation, size, name, notes)
        if findings:
            raise RefusedError(*findings)
        if size is None:
            raise RefusedError(Finding("the image of the strokes cannot be read", name))
        return self._draw(annotation, size, name, notes)

    # ------------------------------------------------------------------ what may be wrong

    def _wrong_tags(self, annotation: Annotation, name: str, notes: list[Finding]) -> Iterator[Finding]:
        for tag in dict.fromkeys(stroke.tag for stroke in annotation.strokes):
            if tag in self._ids:
                continue
            what = f"the tag {tag!r} is not in the class table"
            if self.ignore_unknown_ids:
                notes.append(Finding(what, name, "Its strokes are left out, as the recipe's generator asks"))
                continue
            yield Finding(what, name, self._advice(tag))

    def _advice(self, tag: str) -> str:
        names = self.labels.names.values()
        joined = {name.replace(" ", ""): name for name in names}
        if _VOC.get(tag) in joined:
            table = ", ".join(f"{old}: {joined[new]}" for old, new in _VOC.items() if new in joined)
            return f"ScribbleSup calls classes of VOC in its own way: set data.tags to {{{table}}}"
        near = did_you_mean(tag, names)
        end = "" if near.endswith("?") else "."
        return f"{near}{end} Set data.tags to {{{tag}: <class>}}, or to {{{tag}: null}} to leave its strokes out"

    def _wrong_points(
        self, annotation: Annotation, size: tuple[int, int], name: str, notes: list[Finding]
    ) -> list[Finding]:
        """Tell of points outside the image; even where they are cut, those further away than the image is large."""
        shape = np.array(size[::-1])
        outside, far = [], []
        for stroke in self._drawn(annotation):
            points = stroke.points - self.drawing.origin
            for x, y in stroke.points[((points < 0) | (points >= shape)).any(axis=1)]:
                outside.append(f"x={x} y={y}")
            for x, y in stroke.points[((points < -shape) | (points >= 2 * shape)).any(axis=1)]:
                far.append(f"x={x} y={y}")
        clip = self.drawing.outside == "clip"
        told = far if clip else outside
        if told:
            subject = f"{name} ({_listed(told)}; the image is {size[1]}x{size[0]})"
            hint = "Mend them, set data.outside to clip, or data.origin to 1 if they count from 1"
            if clip:
                hint = "They are further away than the image is large: do they belong to another one?"
            return [Finding("points of strokes lie outside the image", subject, hint)]
        if outside:
            hint = "What lies outside is cut off, as data.outside asks"
            notes.append(Finding("points of strokes lie outside the image", f"{name} ({_listed(outside)})", hint))
        return []

    def _drawn(self, annotation: Annotation) -> Iterator[TaggedStroke]:
        return (stroke for stroke in annotation.strokes if self._ids.get(stroke.tag) is not None)

    # ------------------------------------------------------------------ drawing

    def _draw(self, annotation: Annotation, size: tuple[int, int], name: str, notes: list[Finding]) -> Mask:
        ignore = self.labels.ignore_index
        mask = np.full(size, ignore, np.uint8)
        flat, clashing = mask.reshape(-1), np.zeros(mask.size, bool)
        offsets, pairs = brush(self.drawing.stroke_width), set[tuple[int, int]]()
        for stroke in self._drawn(annotation):
            class_id = self._ids[stroke.tag]
            assert class_id is not None  # _drawn sees to that
            under = _under(stroke.points - self.drawing.origin, offsets, size)
            clash = under[(flat[under] != ignore) & (flat[under] != class_id)]
            pairs |= {(min(class_id, int(other)), max(class_id, int(other))) for other in np.unique(flat[clash])}
            clashing[clash] = True
            flat[under] = class_id
        if clashing.any():
            told = self._contradiction(np.flatnonzero(clashing), pairs, size, name)
            if self.drawing.contradictions == "error":
                raise RefusedError(told)
            notes.append(told)
            flat[clashing] = ignore
        return mask

    def _contradiction(
        self, pixels: NDArray[np.int64], pairs: set[tuple[int, int]], size: tuple[int, int], name: str
    ) -> Finding:
        classes = _listed([f"{self.labels.names[a]} and {self.labels.names[b]}" for a, b in sorted(pairs)])
        origin = self.drawing.origin
        places = _listed([f"x={i % size[1] + origin} y={i // size[1] + origin}" for i in pixels.tolist()])
        hint = "Such pixels are ignored, as data.contradictions asks"
        if self.drawing.contradictions == "error":
            hint = (
                "Mend them, make stroke_width smaller, or set data.contradictions to ignore: none of them is labelled"
            )
        return Finding("strokes of two classes lie on the same pixels", f"{name} ({classes}: {places})", hint)


def _under(points: Points, offsets: Points, size: tuple[int, int]) -> NDArray[np.int64]:
    """Return the flat indices under one stroke; a few points at a time, since lines between them may be long."""
    starts = range(0, max(len(points) - 1, 1), _AT_ONCE)
    parts = [np.unique(painted(line(points[i : i + _AT_ONCE + 1]), offsets, size)) for i in starts]
    return np.unique(np.concatenate(parts))


def _wrong_size(annotation: Annotation, size: tuple[int, int] | None, name: str) -> Iterator[Finding]:
    if size is not None and annotation.size is not None and annotation.size != size:
        found = f"{name} ({annotation.size[1]}x{annotation.size[0]}, the image is {size[1]}x{size[0]})"
        yield Finding("the strokes were drawn on an image of another size", found, "Find the right image")


def _listed(places: list[str]) -> str:
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
