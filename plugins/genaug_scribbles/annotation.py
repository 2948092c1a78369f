"""ScribbleSup's XML files: what they hold, read with suspicion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from genaug.sources.files import RefusedError
from genaug.sources.survey import Finding
from genaug_scribbles.strokes import Points

MAX_BYTES = 1 << 22  # a hundred thousand points; nobody draws that many
_FORM = "every stroke as <polygon><tag>name</tag><point><X>1</X><Y>2</Y></point>...</polygon>"


@dataclass(frozen=True, slots=True)
class TaggedStroke:
    """One stroke as it was drawn.

    Args:
        tag: What was scribbled on.
        points: int64 ``[N, 2]``, x and y as in the file; at least one.
    """

    tag: str
    points: Points


@dataclass(frozen=True, slots=True)
class Annotation:
    """The strokes of one image.

    Args:
        size: ``(height, width)`` that the file gives; None where it gives none.
        strokes: In the file's order.
    """

    size: tuple[int, int] | None
    strokes: tuple[TaggedStroke, ...]


def read_annotation(path: Path, *, name: str) -> Annotation:
    """Read one file: ``annotation / polygon / (tag, point / (X, Y))``, with ``annotation / size`` where it is there.

    Decimal coordinates are rounded to the nearest pixel. Document types and entities are refused, never expanded.

    Args:
        path: The file.
        name: How reports call it.

    Raises:
        RefusedError: Not such a file; all strokes that cannot be read are told at once.
    """
    root = _parse(path, name)
    strokes, findings = [], []
    for number, polygon in enumerate(root.iter("polygon"), start=1):
        place = f"{name} (stroke {number})"
        tag, points = _text(polygon, "tag"), [(_text(p, "X"), _text(p, "Y")) for p in polygon.iter("point")]
        if not tag:
            findings.append(Finding("a stroke has no tag", place, f"Write {_FORM}"))
        elif not points:
            findings.append(Finding("a stroke has no point", place, "Remove it"))
        else:
            try:
                strokes.append(TaggedStroke(tag, _whole(points)))
            except ValueError as error:
                what = "a point's coordinates are no numbers"
                findings.append(Finding(what, f"{name} (stroke {number}, {error})", f"Write {_FORM}"))
    try:
        size = _size(root)
    except ValueError as error:
        findings.append(Finding("the size of the image is no pair of numbers", f"{name} ({error})", f"Write {_FORM}"))
    if findings:
        raise RefusedError(*findings)
    return Annotation(size, tuple(strokes))


def _parse(path: Path, name: str) -> Element:
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        what = "the file declares a document type, which may hide entities"
        raise RefusedError(Finding(what, name, "Remove the <!DOCTYPE ...>"))

    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise RefusedError(Finding(f"the file is larger than {MAX_BYTES >> 20} MiB", name, "Is it an annotation?"))
        parser.Parse(text, True)
        root: Element = builder.close()
    except FileNotFoundError:
        raise RefusedError(Finding("the file does not exist", name)) from None
    except (OSError, expat.ExpatError, LookupError, ValueError) as error:
        raise RefusedError(Finding("the file is no sound XML", f"{name} ({error})", "Fetch or save it again")) from None
    return root


def _text(parent: Element, tag: str) -> str:
    return (parent.findtext(tag) or "").strip()


def _whole(points: list[tuple[str, str]]) -> Points:
    for x, y in points:
        try:
            near = max(abs(float(x)), abs(float(y))) < 2**31  # False for nan and inf too
        except ValueError:
            near = False
        if not near:
            raise ValueError(f"x={x or 'missing'}, y={y or 'missing'}")
    return np.rint(np.array(points, np.float64)).astype(np.int64)


def _size(root: Element) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    height, width = _text(size, "height"), _text(size, "width")
    if not (height.isdecimal() and width.isdecimal()):
        raise ValueError(f"width={width or 'missing'}, height={height or 'missing'}")
    return int(height), int(width)
