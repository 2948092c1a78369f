"""Uncertainty kept on disk, for trainers that label once and train later (ST++)."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from genaug.errors import ConfigError, SampleError, StoreError
from genaug.store.files import make_folder, read_bytes, store_error, sync_folder, write_whole

Map = NDArray[np.float32]

_LEVELS = 65535
_CLASSES = "genaug:classes"
_MODE = "I;16"
_AGAIN = "Label this image again"


class UncertaintyStore:
    """A folder of entropy maps, one 16-bit gray PNG per image: ``round(65535 * E / ln K)``.

    A stored value is off by at most ``ln K / 131070``. Files are written whole or not at all; two processes may fill
    one folder as long as they write different images.

    Args:
        folder: Made by the first `write`.
        num_classes: K, of the network that labels; written into every file and compared on reading.

    Raises:
        ConfigError: No classes.
    """

    def __init__(self, folder: str | Path, num_classes: int) -> None:
        if num_classes < 1:
            raise ConfigError(f"{num_classes} classes", where="UncertaintyStore", allowed="at least 1")
        self.folder = Path(folder)
        self.num_classes = num_classes
        self.most = math.log(num_classes)

    def path(self, sample_id: str) -> Path:
        """Return the file of an image.

        Raises:
            SampleError: The id has a path separator.
        """
        if not sample_id or any(bad in sample_id for bad in "/\\\0") or sample_id in {".", ".."}:
            raise SampleError(f"sample id {sample_id!r}", allowed="a file stem, without path separators")
        return self.folder / f"{sample_id}.png"

    def __contains__(self, sample_id: str) -> bool:
        return self.path(sample_id).is_file()

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of the stored maps, sorted."""
        yield from sorted(path.stem for path in self.folder.glob("*.png") if not path.name.startswith("."))

    def write(self, sample_id: str, uncertainty: NDArray[np.floating] | torch.Tensor) -> None:
        """Store the entropy of an image, in nats.

        Args:
            sample_id: File stem of the image.
            uncertainty: float ``[H, W]`` in ``[0, ln K]``, as `functional.entropy_map` gives it.

        Raises:
            SampleError: Another shape, values that are not finite or out of range.
            StoreError: The file cannot be written.
        """
        where = f"uncertainty of {sample_id}"
        if isinstance(uncertainty, torch.Tensor):
            uncertainty = uncertainty.detach().cpu().float().numpy()
        values = np.asarray(uncertainty, np.float64)
        if values.ndim != 2 or not values.size:
            raise SampleError(f"an array of shape {values.shape}", where=where, allowed="[H, W]")
        least, largest = float(values.min()), float(values.max())
        slack = 1e-4 * max(self.most, 1.0)  # what rounding may add to an entropy
        if not (-slack <= least and largest <= self.most + slack):  # False for NaN
            found, allowed = f"values in [{least:.4g}, {largest:.4g}]", f"[0, ln {self.num_classes} = {self.most:.4g}]"
            raise SampleError(found, where=where, allowed=allowed, hint="Entropies are in nats, of num_classes classes")
        scale = _LEVELS / self.most if self.most else 0.0
        pixels = np.rint(values * scale).clip(0, _LEVELS).astype(np.uint16)
        info = PngInfo()
        info.add_text(_CLASSES, str(self.num_classes))
        buffer = io.BytesIO()
        PILImage.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
        make_folder(self.folder)
        write_whole(self.path(sample_id), buffer.getvalue(), tag="uncertainty")
        sync_folder(self.folder)

    def read(self, sample_id: str, size: tuple[int, int] | None = None) -> Map:
        """Return the entropy of an image in nats, float32 ``[H, W]``.

        Args:
            sample_id: File stem of the image.
            size: ``(height, width)`` of the image, to be compared with the map's.

        Raises:
            StoreError: No such map, damaged, of another number of classes or size.
        """
        path = self.path(sample_id)
        if not path.is_file():
            hint = "Store the entropy of every unlabelled image in the labelling stage (UncertaintyStore.write)"
            raise StoreError("no uncertainty is stored for this image", where=str(path), hint=hint)
        pixels, classes = _decode(read_bytes(path), path)
        if classes != str(self.num_classes):
            found = f"stored for {classes or 'an unknown number of'} classes"
            raise StoreError(found, where=str(path), allowed=str(self.num_classes), hint=_AGAIN)
        if size is not None and pixels.shape != tuple(size):
            found = f"a map of size {pixels.shape} (height, width)"
            raise StoreError(found, where=str(path), allowed=f"{tuple(size)}, the image's", hint=_AGAIN)
        return (pixels * np.float64(self.most / _LEVELS)).astype(np.float32)


def _decode(data: bytes, path: Path) -> tuple[NDArray[np.uint16], str]:
    """Return the pixels of a 16-bit PNG and what it says of the number of classes."""
    try:
        with PILImage.open(io.BytesIO(data), formats=("PNG",)) as picture:
            mode, classes = picture.mode, str(picture.info.get(_CLASSES, ""))
            pixels = np.array(picture)
    except OSError as error:
        if error.errno is not None:
            raise store_error("read", path, error) from error
        raise StoreError(f"damaged PNG: {error}", where=str(path), hint=_AGAIN) from error
    except (SyntaxError, ValueError) as error:  # Pillow raises both for broken PNGs
        raise StoreError(f"damaged PNG: {error}", where=str(path), hint=_AGAIN) from error
    if mode != _MODE:
        raise StoreError(f"a PNG of mode {mode}", where=str(path), allowed=f"{_MODE}, 16-bit gray", hint=_AGAIN)
    return pixels, classes
