"""Strong views: photometric changes of weak ones, so that labels stay in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genaug.errors import ConfigError, SampleError, warn_caller
from genaug.predictions import full
from genaug.rng import Rng
from genaug.step_config import ViewsConfig
from genaug_torch.photometric import Photometric, Seeded, photometric

SLACK = 0.05  # what resizing may add to values in [0, 1]


class StrongView:
    """Makes strong views: colour jitter, gray, blur, as in FixMatch-like segmentation (UniMatch, SENSE, MaskMatch).

    Args:
        config: Probabilities and ranges, and the library. ``albumentations`` works on the CPU, ``torchvision`` and
            ``kornia`` on the images' device, all three image by image; ``builtin`` on the whole batch. ``auto`` takes
            the first of them that is installed, albumentations for images on the CPU only.
        mean: What the loader has subtracted from images in [0, 1], one number a channel; with `std` undone before and
            redone after. Without both, images are taken to be in [0, 1]; others are clamped to it, with a warning.
        std: What it has divided by.
        transform: Used instead of all libraries: images ``[1, 3, H, W]`` in [0, 1] to images of the same shape.
            torch's global random state is set for each call from the sample's own stream, and restored.

    Raises:
        ConfigError: `mean` or `std` is not three numbers, or a `std` is not above 0.
        MissingDependencyError: The library that `config` names cannot be imported.
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
        self._mean, self._std = channels(mean, 0.0, "mean"), channels(std, 1.0, "std")
        if not bool((self._std > 0).all()):
            raise ConfigError(f"{self._std.flatten().tolist()}", where="std", allowed="numbers above 0")
        self._looked = False  # at the range of the first images
        self._made: dict[str, tuple[str, Photometric]] = {}  # by type of device
        if transform is None and self.config.strong not in {"auto", "none"}:
            self.library("cpu")  # tells now what is not installed

    def library(self, device: str = "cpu") -> str:
        """Return the library that changes images on a type of device."""
        if self.config.strong == "none" and self.transform is None:
            return "none"
        return self._changes(device)[0]

    @torch.no_grad()
    def __call__(self, images: Tensor, *, rng: Rng, first: int = 0) -> Tensor:
        """Change images ``[B, 3, H, W]``; sample i depends on ``rng.child(first + i)`` alone.

        Works in float32 (float64 stays) and returns the type of `images`.

        Raises:
            SampleError: The images have another shape, or a transform changed it.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise SampleError(f"images of shape {tuple(images.shape)}", where="strong view", allowed="[B, 3, H, W]")
        if self.library(images.device.type) == "none":
            return images
        # Half precision is too coarse for hues and for the blur's sums, also where autocast would choose it.
        with torch.autocast(images.device.type, enabled=False):
            pixels = self.pixels(images)
            streams = [rng.child(first + i) for i in range(len(images))]
            changed = self._changes(images.device.type)[1](pixels, streams)
            return ((changed - self._mean.to(pixels)) / self._std.to(pixels)).to(images.dtype)

    def pixels(self, images: Tensor) -> Tensor:
        """Return images ``[B, 3, H, W]`` in [0, 1], float32 (float64 stays): the normalisation undone, then clamped."""
        pixels = full(images)
        pixels = pixels * self._std.to(pixels) + self._mean.to(pixels)
        self._look(pixels)
        return pixels.clamp(0, 1)

    def _changes(self, device: str) -> tuple[str, Photometric]:
        if device not in self._made:
            own = None if self.transform is None else ("transform", Seeded(self.transform))
            self._made[device] = own or photometric(self.config, device)
        return self._made[device]

    def _look(self, pixels: Tensor) -> None:
        """Warn of images in another range; in the first batch only, as a GPU has to wait."""
        if self._looked or not pixels.numel():
            return
        self._looked = True
        low, high = (float(value) for value in pixels.aminmax())
        if low < -SLACK or high > 1 + SLACK:
            found = f"images are taken to be in [0, 1] and clamped, but reach from {low:.2f} to {high:.2f}"
            warn_caller(f"{found}: pass the mean and std that they were normalised with")


def channels(values: Sequence[float] | None, default: float, name: str) -> Tensor:
    """Return one number a channel as a tensor ``[1, 3, 1, 1]``.

    Raises:
        ConfigError: There are not three.
    """
    given = [default] * 3 if values is None else [float(value) for value in values]
    if len(given) != 3:
        raise ConfigError(f"{len(given)} numbers", where=name, allowed="3, one a channel")
    return torch.tensor(given).view(1, 3, 1, 1)
