"""Strong views: photometric changes of weak ones, so that labels stay in place."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genaug.errors import ConfigError, MissingDependencyError, SampleError
from genaug.predictions import full
from genaug.rng import Rng
from genaug.step_config import ViewsConfig
from genaug_torch import colour

SIGMA = (0.1, 2.0)  # of the blur, in pixels (all papers here)
SLACK = 0.05  # what resizing may add to values in [0, 1]


class StrongView:
    """Makes strong views: colour jitter, gray, blur, as in FixMatch-like segmentation (UniMatch, SENSE, MaskMatch).

    Args:
        config: Probabilities and ranges, and the library: ``albumentations`` works on the CPU, image by image;
            ``builtin`` on the images' device.
        mean: What the loader has subtracted from images in [0, 1], one number a channel; with `std` undone before and
            redone after. Without both, images are taken to be in [0, 1]; others are clamped to it, with a warning.
        std: What it has divided by.
        transform: Used instead of both libraries: images ``[1, 3, H, W]`` in [0, 1] to images of the same shape, for
            example a torchvision or kornia transform. torch's global random state is set for each call from the
            sample's own stream, and restored.

    Raises:
        ConfigError: `mean` or `std` is not three numbers, or a `std` is not above 0.
    """

    def __init__(
        self,
        config: ViewsConfig | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.config, self.transform = config or ViewsConfig(), transform
        self._mean, self._std = _channels(mean, 0.0, "mean"), _channels(std, 1.0, "std")
        if not bool((self._std > 0).all()):
            raise ConfigError(f"{self._std.flatten().tolist()}", where="std", allowed="numbers above 0")
        self._looked = False  # at the range of the first images
        self.library = self.config.strong
        if self.library == "auto":
            installed = importlib.util.find_spec("albumentations") is not None
            self.library = "albumentations" if installed else "builtin"
        self._compose = _albumentations(self.config) if self.library == "albumentations" and transform is None else None

    @torch.no_grad()
    def __call__(self, images: Tensor, *, rng: Rng, first: int = 0) -> Tensor:
        """Change images ``[B, 3, H, W]``; sample i depends on ``rng.child(first + i)`` alone.

        Works in float32 (float64 stays) and returns the type of `images`.

        Raises:
            SampleError: The images have another shape, or a transform changed it.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise SampleError(f"images of shape {tuple(images.shape)}", where="strong view", allowed="[B, 3, H, W]")
        if self.library == "none" and self.transform is None:
            return images
        # Half precision is too coarse for hues and for the blur's sums, also where autocast would choose it.
        with torch.autocast(images.device.type, enabled=False):
            pixels = self.pixels(images)
            streams = [rng.child(first + i) for i in range(len(images))]
            if self.transform is not None:
                changed = self._transformed(pixels, streams, self.transform)
            elif self._compose is not None:
                changed = self._composed(pixels, streams, self._compose)
            else:
                changed = self._built_in(pixels, streams)
            return ((changed - self._mean.to(pixels)) / self._std.to(pixels)).to(images.dtype)

    def pixels(self, images: Tensor) -> Tensor:
        """Return images ``[B, 3, H, W]`` in [0, 1], float32 (float64 stays): the normalisation undone, then clamped."""
        pixels = full(images)
        pixels = pixels * self._std.to(pixels) + self._mean.to(pixels)
        self._look(pixels)
        return pixels.clamp(0, 1)

    def _look(self, pixels: Tensor) -> None:
        """Warn of images in another range; in the first batch only, as a GPU has to wait."""
        if self._looked or not pixels.numel():
            return
        self._looked = True
        low, high = (float(value) for value in pixels.aminmax())
        if low < -SLACK or high > 1 + SLACK:
            found = f"strong views are made in [0, 1] and clamped, but images reach from {low:.2f} to {high:.2f}"
            warnings.warn(f"{found}: pass the mean and std that they were normalised with", stacklevel=5)

    def _transformed(self, pixels: Tensor, streams: list[Rng], transform: Callable[[Tensor], Tensor]) -> Tensor:
        devices = [pixels.device] if pixels.device.type == "cuda" else []
        results = []
        for image, stream in zip(pixels.unsqueeze(1), streams, strict=True):
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(stream.integer())
                result = transform(image)
            if result.shape != image.shape:
                raise SampleError(
                    f"a transform gave {tuple(result.shape)}", allowed=f"{tuple(image.shape)}: no geometry"
                )
            results.append(result)
        return torch.cat(results)

    def _composed(self, pixels: Tensor, streams: list[Rng], compose: Any) -> Tensor:
        arrays = pixels.movedim(1, -1).float().cpu().numpy()  # it knows no float64
        results = []
        for array, stream in zip(arrays, streams, strict=True):
            compose.set_random_seed(stream.integer(32))
            results.append(compose(image=np.ascontiguousarray(array))["image"])
        return torch.from_numpy(np.stack(results)).movedim(-1, 1).to(pixels)

    def _built_in(self, pixels: Tensor, streams: list[Rng]) -> Tensor:
        # One row of uniform numbers a sample, drawn on the CPU: the same on every device and in every batch.
        rows = torch.stack([torch.rand(8, generator=stream.torch()) for stream in streams]).to(pixels)
        config = self.config

        def factors(column: int, reach: float) -> Tensor:
            return 1 + reach * (2 * rows[:, column] - 1)

        jittered = colour.adjust_brightness(pixels, factors(0, config.brightness).clamp_min(0))
        jittered = colour.adjust_contrast(jittered, factors(1, config.contrast).clamp_min(0))
        jittered = colour.adjust_saturation(jittered, factors(2, config.saturation).clamp_min(0))
        jittered = colour.adjust_hue(jittered, config.hue * (2 * rows[:, 3] - 1))
        blurred = rows[:, 6] < config.blur
        pixels = _where(rows[:, 4] < config.jitter, jittered, pixels)
        pixels = _where(rows[:, 5] < config.gray, colour.luma(pixels).expand_as(pixels), pixels)
        return _where(blurred, colour.gaussian_blur(pixels, SIGMA[0] + (SIGMA[1] - SIGMA[0]) * rows[:, 7]), pixels)


def _channels(values: Sequence[float] | None, default: float, name: str) -> Tensor:
    given = [default] * 3 if values is None else [float(value) for value in values]
    if len(given) != 3:
        raise ConfigError(f"{len(given)} numbers", where=name, allowed="3, one a channel")
    return torch.tensor(given).view(1, 3, 1, 1)


def _where(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, 1, 1, 1), changed, images)


def _albumentations(config: ViewsConfig) -> Any:
    """Return the same changes as a transform of albumentations."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask a server for the newest version
    try:
        import albumentations as A
    except ImportError as error:
        raise MissingDependencyError(
            "albumentations is not installed", where="views.strong", hint="pip install 'genaug[albumentations]'"
        ) from error
    jitter = A.ColorJitter(
        brightness=(max(0.0, 1 - config.brightness), 1 + config.brightness),
        contrast=(max(0.0, 1 - config.contrast), 1 + config.contrast),
        saturation=(max(0.0, 1 - config.saturation), 1 + config.saturation),
        hue=(-config.hue, config.hue),
        p=config.jitter,
    )
    blur = A.GaussianBlur(blur_limit=0, sigma_limit=SIGMA, p=config.blur)
    return A.Compose([jitter, A.ToGray(num_output_channels=3, p=config.gray), blur])
