"""Changes of colour by whichever library is there: the same ranges and probabilities, one stream for every image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from genaug.errors import SampleError
from genaug.rng import Rng
from genaug.step_config import ViewsConfig
from genaug_torch import colour
from genaug_torch.libraries import choose, load

SIGMA = (0.1, 2.0)  # of the blur, in pixels (all papers here)
REACH = 6  # of the blur's kernel, in pixels: three times the largest sigma
WHERE = "views.strong"


class Photometric(Protocol):
    """Changes images ``[B, 3, H, W]`` in [0, 1], image i by draws from ``streams[i]`` alone; no geometry."""

    def __call__(self, pixels: Tensor, streams: Sequence[Rng], /) -> Tensor:
        """Return images of the same shape."""
        ...


def photometric(config: ViewsConfig, device: str) -> tuple[str, Photometric]:
    """Return the library that makes strong views on a type of device, and how it does.

    Raises:
        MissingDependencyError: The library that the options name cannot be imported.
    """
    makers = {name: partial(make, config) for name, make in _MAKERS.items()}
    return choose(config.strong, makers, device=device, where=WHERE)


class Seeded:
    """Transforms that draw from torch's global random state, which is set for every image, and restored.

    Args:
        transform: Images ``[1, 3, H, W]`` in [0, 1] to images of the same shape.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __call__(self, pixels: Tensor, streams: Sequence[Rng], /) -> Tensor:
        """Change every image on its own.

        Raises:
            SampleError: The transform gave another shape, or no tensor.
        """
        # Only the generators that the transform may draw from: other devices' are not restored.
        devices = [pixels.device] if pixels.device.type == "cuda" else []
        generators = [torch.default_generator, *(torch.cuda.default_generators[device.index] for device in devices)]
        results = []
        for image, stream in zip(pixels.unsqueeze(1), streams, strict=True):
            with torch.random.fork_rng(devices=devices):
                for generator in generators:
                    generator.manual_seed(stream.integer())
                result = self.transform(image)
            shape = tuple(result.shape) if isinstance(result, Tensor) else None
            if shape != tuple(image.shape):
                found = f"a transform gave {'a ' + type(result).__name__ if shape is None else shape}"
                allowed = f"a tensor {tuple(image.shape)}: no geometry"
                raise SampleError(found, where="strong_view", allowed=allowed, hint="Return the changed image")
            results.append(result)
        return torch.cat(results)


class _BuiltIn:
    """Plain torch operations on the whole batch, on the images' device."""

    def __init__(self, config: ViewsConfig) -> None:
        self.config = config

    def __call__(self, pixels: Tensor, streams: Sequence[Rng], /) -> Tensor:
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


class _Albumentations:
    """Image by image, on the CPU, in float32."""

    def __init__(self, config: ViewsConfig) -> None:
        A = load("albumentations", where=WHERE)
        jitter = A.ColorJitter(**_ranges(config), hue=(-config.hue, config.hue), p=config.jitter)
        blur = A.GaussianBlur(blur_limit=0, sigma_limit=SIGMA, p=config.blur)
        self._compose = A.Compose([jitter, A.ToGray(num_output_channels=3, p=config.gray), blur])

    def __call__(self, pixels: Tensor, streams: Sequence[Rng], /) -> Tensor:
        arrays = pixels.movedim(1, -1).float().cpu().numpy()  # it knows no float64
        results = []
        for array, stream in zip(arrays, streams, strict=True):
            self._compose.set_random_seed(stream.integer(32))
            results.append(self._compose(image=np.ascontiguousarray(array))["image"])
        return torch.from_numpy(np.stack(results)).movedim(-1, 1).to(pixels)


def _torchvision(config: ViewsConfig) -> Photometric:
    v2 = load("torchvision.transforms.v2", where=WHERE)
    jitter = v2.RandomApply([v2.ColorJitter(**_ranges(config), hue=config.hue)], p=config.jitter)
    gray = v2.RandomGrayscale(p=config.gray)

    def transform(image: Tensor) -> Tensor:
        blur = v2.RandomApply([v2.GaussianBlur(_kernel(image), SIGMA)], p=config.blur)
        changed: Tensor = blur(gray(jitter(image)))
        return changed

    return Seeded(transform)


def _kornia(config: ViewsConfig) -> Photometric:
    K = load("kornia.augmentation", where=WHERE)
    jitter = K.ColorJitter(**_ranges(config), hue=config.hue, p=config.jitter)
    gray = K.RandomGrayscale(p=config.gray)

    def transform(image: Tensor) -> Tensor:
        blur = K.RandomGaussianBlur(_kernel(image), SIGMA, p=config.blur)
        changed: Tensor = blur(gray(jitter(image)))
        return changed

    return Seeded(transform)


_MAKERS: dict[str, Callable[[ViewsConfig], Photometric]] = {
    "albumentations": _Albumentations,
    "torchvision": _torchvision,
    "kornia": _kornia,
    "builtin": _BuiltIn,
}


def _ranges(config: ViewsConfig) -> dict[str, Any]:
    names = ("brightness", "contrast", "saturation")
    return {name: (max(0.0, 1 - getattr(config, name)), 1 + getattr(config, name)) for name in names}


def _kernel(image: Tensor) -> int:
    """Return the side of the largest blur's kernel that mirrored borders allow."""
    return 2 * min(REACH, *(side - 1 for side in image.shape[-2:])) + 1


def _where(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, 1, 1, 1), changed, images)
