"""Small pictures inside the page: photographs, masks in class colours, hatching where a filter ignores pixels."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from genaug.errors import StoreError
from genaug.labels import LabelSpace
from genaug.types import Image, Mask

#: Longest side in pixels: sharp at the page's 160 CSS pixels, a few kilobytes a picture.
SIDE = 192
#: Widest preview sheet of an adapter's training.
PREVIEW_SIDE = 900
_HATCH = np.array([[40, 40, 40], [245, 245, 245]], np.uint8)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture inside the page.

    Args:
        uri: ``data:`` URI.
        width: Of the original, in pixels.
        height: Of the original, in pixels.
        pixelated: True where the original is so small that its pixels should stay visible.
    """

    uri: str
    width: int
    height: int
    pixelated: bool


def photo(image: Image, *, side: int = SIDE) -> Picture:
    """Return an image ``[H, W, 3]`` as JPEG of at most `side` pixels; small ones as PNG, pixel by pixel."""
    height, width = image.shape[:2]
    picture = PILImage.fromarray(image)
    small = max(height, width) <= side // 2
    if max(height, width) > side:
        picture.thumbnail((side, side), PILImage.Resampling.LANCZOS)
    return Picture(_encode(picture, "PNG" if small else "JPEG"), width, height, small)


def mask_picture(
    mask: Mask, labels: LabelSpace, hatched: NDArray[np.bool_] | None = None, *, side: int = SIDE
) -> Picture:
    """Return a mask ``[H, W]`` in class colours, with diagonal hatching where `hatched` ``[H, W]`` is True.

    The mask is enlarged by a whole factor before hatching, or reduced by nearest neighbour, so that the hatching has
    one width in every picture.
    """
    height, width = mask.shape
    rows, columns = _sampled(height, width, side)
    colors = labels.colorize(mask[rows][:, columns])
    if hatched is not None:
        y, x = np.indices(colors.shape[:2])
        stripes = _HATCH[(x + y) // 3 % 2]
        colors = np.where(hatched[rows][:, columns, None], stripes, colors)
    return Picture(_encode(_indexed(colors), "PNG"), width, height, False)


def _indexed(colors: Image) -> PILImage.Image:
    """Return a palette picture, a tenth of an RGB file; a mask has at most 256 colours, but hatching adds two."""
    wide = colors.astype(np.uint32)
    codes, index = np.unique((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2], return_inverse=True)
    if len(codes) > 256:
        return PILImage.fromarray(colors)
    picture = PILImage.fromarray(index.reshape(colors.shape[:2]).astype(np.uint8))
    picture.putpalette(np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.uint8).tobytes())
    return picture


def preview(path: Path) -> Picture:
    """Read a preview sheet that a training wrote.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        with PILImage.open(path) as file:
            image = np.asarray(file.convert("RGB"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot be read: {error}", where=str(path), hint="Delete the file to leave it out") from error
    return photo(image, side=PREVIEW_SIDE)


def _sampled(height: int, width: int, side: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the source row of every row and the source column of every column of a thumbnail."""
    longest = max(height, width)
    factor = side // longest if longest <= side else side / longest
    rows, columns = (max(1, round(length * factor)) for length in (height, width))
    return (np.arange(rows) * height // rows).astype(np.intp), (np.arange(columns) * width // columns).astype(np.intp)


def _encode(picture: PILImage.Image, form: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=85, optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{form.lower()};base64,{text}"
