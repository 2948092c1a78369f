"""Weak views: random scale, padding, crop and flip, of an image and of everything that has one value a pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genaug.batch import PIXELS, Batch
from genaug.errors import SampleError
from genaug.predictions import full
from genaug.rng import Rng
from genaug.step_config import ViewsConfig
from genaug_torch.libraries import choose, load
from genaug_torch.views import channels

#: Resamples an image ``[3, H, W]`` to ``(height, width)``; pixel centres lie as in ``F.interpolate``.
Resample = Callable[[Tensor, tuple[int, int]], Tensor]
WHERE = "views.weak"


class WeakView:
    """Makes weak views, as UniMatch, SENSE and their like: scale, pad at the right and below, crop, flip.

    Where each sample is cut is drawn here, so that it is the same whichever library resamples; labels and all else
    that has one value a pixel take the nearest pixel's value and are never averaged. Padding is black, has the ignore
    index, weighs nothing and is not `valid`.

    Args:
        config: Ranges, size, and the library; `ViewsConfig()` makes no weak views. ``auto`` takes the first of
            albumentations (images on the CPU only), torchvision and kornia that is installed, else ``builtin``.
        mean: What the loader has subtracted from images in [0, 1], one number a channel: black is ``-mean / std``.
        std: What it has divided by.
        ignore_index: Label of padding.

    Raises:
        ConfigError: `mean` or `std` is not three numbers.
        MissingDependencyError: The library that `config` names cannot be imported.
    """

    def __init__(
        self,
        config: ViewsConfig | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        ignore_index: int = 255,
    ) -> None:
        self.config = config or ViewsConfig()
        self._black = -channels(mean, 0.0, "mean") / channels(std, 1.0, "std")
        self._padding = {"targets": ignore_index, "weights": 0.0, "valid": False, "provenance": 0}
        self._made: dict[str, tuple[str, Resample]] = {}  # by type of device
        if self.config.weak not in {"auto", "none"}:
            self.library("cpu")  # tells now what is not installed

    def library(self, device: str = "cpu") -> str:
        """Return the library that resamples images on a type of device."""
        return "none" if self.config.weak == "none" else self._resample(device)[0]

    @torch.no_grad()
    def __call__(self, batch: Batch, *, rng: Rng) -> Batch:
        """Return other views of the images ``[B, 3, H, W]`` of a batch, with their targets, weights and so on.

        Sample i depends on ``rng.child(batch.first + i)`` alone. Images are resampled in float32 (float64 stays) and
        keep their type. `valid` is always given, unless `config` makes no weak views: then the batch itself comes back.

        Args:
            batch: Labelled or not; images of any size, e.g. a single one in a dataset's ``__getitem__``.
            rng: Source of every draw.

        Raises:
            SampleError: The batch has predictions or distributions, which are those of the images as they are.
        """
        if self.config.weak == "none":
            return batch
        if batch.predictions is not None or batch.soft is not None:
            raise SampleError("a batch with predictions", where="weak view", hint="Make weak views first")
        device, height_width = batch.images.device, self._crop(batch.size)
        pieces = [_draw(rng.child(batch.first + i), batch.size, height_width, self.config) for i in range(len(batch))]
        if batch.valid is None:
            batch = replace(batch, valid=torch.ones(len(batch), *batch.size, dtype=torch.bool, device=device))
        resample = self._resample(device.type)[1]
        black = self._black.to(batch.images).expand(len(batch), -1, *height_width)
        with torch.autocast(device.type, enabled=False):
            seen = (piece.image(image, resample) for piece, image in zip(pieces, batch.images, strict=True))
            moved: dict[str, Any] = {"images": _place(seen, pieces, black)}
        for name in PIXELS:
            values = getattr(batch, name)
            if values is not None:
                empty = values.new_full((), self._padding[name]).expand(len(batch), *height_width)
                seen = (piece.nearest(value) for piece, value in zip(pieces, values, strict=True))
                moved[name] = _place(seen, pieces, empty)
        return replace(batch, **moved)

    def _crop(self, size: tuple[int, int]) -> tuple[int, int]:
        crop = self.config.crop
        return size if crop is None else (crop, crop) if isinstance(crop, int) else crop

    def _resample(self, device: str) -> tuple[str, Resample]:
        if device not in self._made:
            self._made[device] = choose(self.config.weak, _MAKERS, device=device, where=WHERE)
        return self._made[device]


@dataclass(frozen=True, slots=True)
class _Piece:
    """One sample's geometry: the size before, the size after scaling, and what is cut out of that and flipped."""

    before: tuple[int, int]
    scaled: tuple[int, int]
    rows: slice
    columns: slice
    flipped: bool

    def image(self, image: Tensor, resample: Resample) -> Tensor:
        """Scale and cut an image ``[3, H, W]``."""
        if self.scaled != self.before:
            image = resample(full(image), self.scaled).to(image)
        return image[:, self.rows, self.columns]

    def nearest(self, values: Tensor) -> Tensor:
        """Scale and cut values ``[H, W]`` of any type: each is the one at the nearest pixel centre."""
        sources = []
        for side, scaled, cut in zip(self.before, self.scaled, (self.rows, self.columns), strict=True):
            places = torch.arange(scaled, device=values.device)[cut]
            sources.append((2 * places + 1) * side // (2 * scaled))  # whole numbers: no rounding moves a label
        return values[sources[0].unsqueeze(1), sources[1]]


def _draw(stream: Rng, size: tuple[int, int], crop: tuple[int, int], config: ViewsConfig) -> _Piece:
    scale, down, across, flip = torch.rand(4, generator=stream.torch(), dtype=torch.float64).tolist()
    factor = config.scale[0] + (config.scale[1] - config.scale[0]) * scale
    scaled = [max(1, round(factor * side)) for side in size]
    room = [max(0, after - side) for after, side in zip(scaled, crop, strict=True)]
    top, left = int(down * (room[0] + 1)), int(across * (room[1] + 1))
    rows, columns = slice(top, top + crop[0]), slice(left, left + crop[1])
    return _Piece(size, (scaled[0], scaled[1]), rows, columns, flip < config.flip)


def _place(seen: Any, pieces: Sequence[_Piece], empty: Tensor) -> Tensor:
    """Return `empty` with every sample's piece at the upper left, and those samples flipped that are to be."""
    filled = empty.clone()
    for canvas, part, piece in zip(filled, seen, pieces, strict=True):
        canvas[..., : part.shape[-2], : part.shape[-1]] = part
        if piece.flipped:
            canvas.copy_(canvas.flip(-1))
    return filled


# ---------------------------------------------------------------------- libraries


def _builtin() -> Resample:
    def resample(image: Tensor, size: tuple[int, int]) -> Tensor:
        # torch 2.13 on a CPU repeats the first row where the result has one column and antialias is on.
        return F.interpolate(image[None], size=size, mode="bilinear", antialias=size[1] > 1)[0]

    return resample


def _torchvision() -> Resample:
    functional = load("torchvision.transforms.v2.functional", where=WHERE)

    def resample(image: Tensor, size: tuple[int, int]) -> Tensor:
        seen: Tensor = functional.resize(image, list(size), antialias=True)
        return seen

    return resample


def _kornia() -> Resample:
    geometry = load("kornia.geometry.transform", where=WHERE)

    def resample(image: Tensor, size: tuple[int, int]) -> Tensor:
        seen: Tensor = geometry.resize(image, size, align_corners=False, antialias=True)
        return seen

    return resample


def _albumentations() -> Resample:
    A, cv2 = load("albumentations", where=WHERE), load("cv2", where=WHERE)

    def resample(image: Tensor, size: tuple[int, int]) -> Tensor:
        larger = size[0] >= image.shape[1]
        resize = A.Resize(*size, interpolation=cv2.INTER_LINEAR if larger else cv2.INTER_AREA, p=1)
        array = np.ascontiguousarray(image.movedim(0, -1).float().cpu().numpy())  # it knows no float64
        return torch.from_numpy(resize(image=array)["image"]).movedim(-1, 0).to(image)

    return resample


_MAKERS: dict[str, Callable[[], Resample]] = {
    "albumentations": _albumentations,
    "torchvision": _torchvision,
    "kornia": _kornia,
    "builtin": _builtin,
}
