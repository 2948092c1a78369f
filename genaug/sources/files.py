"""One file to one array. Whatever a decoder would change on the way is refused, never mended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL.Image

from genaug.labels import Color
from genaug.sources.survey import Finding
from genaug.types import Image, Mask

_ORIENTATION = 0x0112  # EXIF tag
_TILES = "Cut it into tiles"
_RESAVE = "Save class ids as 8-bit gray or palette PNG"


class RefusedError(Exception):
    """A file that cannot be used; `findings` say why. Callers turn them into `DataError` or lines of a report."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(findings[0].what)
        self.findings = findings

    @property
    def finding(self) -> Finding:
        """The first of the findings."""
        return self.findings[0]


class ColorTable:
    """RGB colours to class ids.

    Args:
        colors: id -> RGB; no two ids share a colour (`LabelSpace` sees to that).
    """

    def __init__(self, colors: Mapping[int, Color]) -> None:
        codes = np.array([(r << 16) | (g << 8) | b for r, g, b in colors.values()], dtype=np.uint32)
        order = np.argsort(codes)
        self._codes = codes[order]
        self._ids = np.array(list(colors), dtype=np.uint8)[order]

    def decode(self, rgb: Image) -> tuple[Mask, list[Color]]:
        """Turn uint8 ``[H, W, 3]`` into ids ``[H, W]`` and the colours that the table does not list (id 0 there)."""
        wide = rgb.astype(np.uint32)
        codes = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        known = self._codes[places] == codes
        mask: Mask = np.where(known, self._ids[places], 0).astype(np.uint8)
        unknown = [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in np.unique(codes[~known])]
        return mask, unknown


def read_image(path: Path | IO[bytes], *, name: str, gray: bool, max_pixels: int) -> Image:
    """Read an image as uint8 ``[H, W, 3]`` RGB.

    Args:
        path: The file, or its bytes as an open file.
        name: How reports call it.
        gray: Repeat the channel of 8-bit gray images; they are refused otherwise.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        RefusedError: Unreadable, truncated, too large, rotated by EXIF, more than 8 bits, or not RGB.
    """
    with _opened(path, name, max_pixels) as (picture, raw_mode):
        if ";16" in raw_mode or picture.mode.startswith(("I", "F")):
            raise _refused("the image has more than 8 bits a channel", name, picture, "Save it as 8-bit RGB")
        if picture.mode == "L" and gray:
            return np.repeat(np.asarray(picture)[..., None], 3, axis=2)
        if picture.mode == "L":
            raise _refused("the image is gray", name, picture, "Set 'gray: true' to repeat its channel, or save as RGB")
        if picture.mode != "RGB":
            raise _refused("the image is not RGB", name, picture, "Save it as 8-bit RGB, without transparency")
        return np.array(picture)


def read_mask(path: Path | IO[bytes], *, name: str, colors: ColorTable | None, max_pixels: int) -> Mask:
    """Read a mask as uint8 ``[H, W]`` of class ids; palette files are read by index, never by colour.

    Args:
        path: The file, or its bytes as an open file.
        name: How reports call it.
        colors: For RGB masks; None for masks of ids.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        RefusedError: Unreadable, a format or mode that does not hold ids as they are, or colours outside the table.
    """
    with _opened(path, name, max_pixels) as (picture, raw_mode):
        _refuse_changed_ids(picture, raw_mode, name)
        if picture.mode == "RGB" and colors is None:
            hint = "Save class ids, or set 'color_map: true' and list every class in labels.colors"
            raise _refused("the mask is RGB: colours, not class ids", name, picture, hint)
        if picture.mode != "RGB" and colors is not None:
            raise _refused("the mask is not RGB, but 'color_map' is set", name, picture, "Remove 'color_map'")
        if colors is None:
            return np.array(picture)
        mask, unknown = colors.decode(np.asarray(picture))
    if unknown:
        listed = ", ".join(map(str, unknown[:3])) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        hint = "Add them to labels.colors; blended colours mean that the mask was resized or saved with loss"
        raise RefusedError(Finding("the mask has colours that labels.colors does not list", f"{name}: {listed}", hint))
    return mask


def _refuse_changed_ids(picture: PIL.Image.Image, raw_mode: str, name: str) -> None:
    """Refuse everything whose stored numbers differ from the class ids that were drawn."""
    if picture.format in {"JPEG", "MPO"}:
        raise _refused("the mask is a JPEG: ids change along edges", name, picture, f"{_RESAVE} from the originals")
    if picture.mode == "1":
        raise _refused(
            "the mask has 1 bit a pixel", name, picture, f"{_RESAVE}, so that ids are told from black and white"
        )
    if picture.mode.startswith(("I", "F")):
        raise _refused("the mask has more than 8 bits a pixel", name, picture, f"{_RESAVE}; ids end at 255")
    if picture.mode not in {"L", "P", "RGB"}:
        raise _refused("the mask has a mode that holds no class ids", name, picture, _RESAVE)
    if picture.mode == "L" and raw_mode not in {"", "L"}:
        # 2- and 4-bit gray is stretched to 0..255 by every reader, and min-is-white TIFF is inverted.
        what = f"the mask is stored as {raw_mode}, which readers stretch or invert"
        raise _refused(what, name, picture, _RESAVE)


@contextmanager
def _opened(path: Path | IO[bytes], name: str, max_pixels: int) -> Iterator[tuple[PIL.Image.Image, str]]:
    """Open a picture; yield it with its raw mode, which Pillow forgets as soon as pixels are decoded."""
    try:
        with PIL.Image.open(path) as picture:
            raw_mode = _raw_mode(picture)
            _refuse_unsafe(picture, name, max_pixels)
            yield picture, raw_mode
    except RefusedError:
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise RefusedError(Finding("the picture is too large for Pillow", f"{name} ({error})", _TILES)) from None
    except FileNotFoundError:
        raise RefusedError(Finding("the file does not exist", name)) from None
    except Exception as error:  # decoders of damaged files raise nearly everything
        text = "not a picture" if isinstance(error, PIL.UnidentifiedImageError) else str(error) or repr(error)
        hint = "Fetch or save it again"
        raise RefusedError(Finding("the file cannot be read", f"{name} ({text})", hint)) from None


def _refuse_unsafe(picture: PIL.Image.Image, name: str, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        what, hint = f"the picture is larger than max_pixels ({max_pixels})", f"{_TILES}, or raise max_pixels"
        raise RefusedError(Finding(what, f"{name} ({width}x{height})", hint))
    if getattr(picture, "n_frames", 1) > 1:
        raise _refused("the file holds several pictures", name, picture, "Save one picture a file")
    if (turned := rotation(picture)) is not None:
        what = "the EXIF orientation asks for a rotation, which image and mask may not share"
        hint = "Rotate the pixels and remove the tag, e.g. with PIL.ImageOps.exif_transpose"
        raise RefusedError(Finding(what, f"{name} (orientation {turned})", hint))


def rotation(picture: PIL.Image.Image) -> Any:
    """Return the EXIF orientation that a picture asks for and that its pixels do not have; None for none."""
    orientation = picture.getexif().get(_ORIENTATION, 1)
    return None if orientation in (0, 1) else orientation


def _refused(what: str, name: str, picture: PIL.Image.Image, hint: str) -> RefusedError:
    return RefusedError(Finding(what, f"{name} ({picture.format} mode {picture.mode})", hint))


def _raw_mode(picture: PIL.Image.Image) -> str:
    """Return how the file stores pixels (Pillow's raw mode), '' where the format does not say."""
    tiles: list[Any] = list(getattr(picture, "tile", []))
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""
