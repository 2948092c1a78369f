"""Photometric changes in plain torch: every sample of a batch has its own parameters. Images are in [0, 1]."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: Rec. 601, as in PIL and torchvision.
LUMA = (0.299, 0.587, 0.114)


def luma(images: Tensor) -> Tensor:
    """Return the brightness ``[B, 1, H, W]`` of RGB images ``[B, 3, H, W]``."""
    return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    """Return ``f * images + (1 - f) * other`` in [0, 1], one factor ``[B]`` a sample."""
    factors = factors.view(-1, 1, 1, 1)
    return (factors * images + (1 - factors) * other).clamp(0, 1)


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with black."""
    return blend(images, torch.zeros_like(images), factors)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the mean brightness of each image."""
    return blend(images, luma(images).mean((2, 3), keepdim=True), factors)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the gray image."""
    return blend(images, luma(images), factors)


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue by ``[B]`` turns; brightness and saturation in the HSV sense stay."""
    high, which = images.max(1)
    span = high - images.amin(1)
    red, green, blue = images.unbind(1)
    safe = span.clamp_min(1e-12)
    sixths = torch.stack([(green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe], 1)
    hue = sixths.gather(1, which.unsqueeze(1)).squeeze(1) / 6 + shifts.view(-1, 1, 1)
    # Each channel of a pure hue is a trapezium over the circle, shifted by a third.
    offsets = images.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    place = (offsets + 6 * hue.unsqueeze(1)) % 6
    return high.unsqueeze(1) - span.unsqueeze(1) * torch.minimum(place, 4 - place).clamp(0, 1)


def gaussian_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each image with its own sigma ``[B]`` in pixels, above 0, up to 3 sigma away; borders are mirrored."""
    count, channels, height, width = images.shape
    radius = min(math.ceil(3 * float(sigmas.max())), height - 1, width - 1)
    if radius < 1:
        return images
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    sigmas = sigmas.to(images).view(-1, 1)
    kernels = torch.exp(-(offsets**2) / (2 * sigmas**2))
    # Each kernel has its own reach: an image must not depend on the others' sigmas.
    kernels = kernels.masked_fill(offsets.abs() > (3 * sigmas).ceil(), 0.0)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    x = F.pad(images.reshape(1, count * channels, height, width), (radius,) * 4, mode="reflect")
    x = F.conv2d(x, kernels.view(-1, 1, 1, 2 * radius + 1), groups=count * channels)
    x = F.conv2d(x, kernels.view(-1, 1, 2 * radius + 1, 1), groups=count * channels)
    return x.view(images.shape)
