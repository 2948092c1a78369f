"""Latents of images: encoded once, then noised as a training step asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genaug.batch import image_tensor
from genaug.errors import ConfigError
from genaug.types import Image
from genaug_diffusion.images import to_model_range
from genaug_diffusion.training import Row


@torch.no_grad()
def encode_moments(vae: Any, image: Image) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation ``[C, h, w]`` (float32, CPU, unscaled) of an image uint8 ``[H, W, 3]``."""
    x = to_model_range(image_tensor(image))[None].to(vae.device, vae.dtype)
    posterior = vae.encode(x).latent_dist
    return posterior.mean[0].float().cpu(), posterior.std[0].float().cpu()


def prediction_type(scheduler: Any) -> str:
    """Return what a base model predicts: ``epsilon`` or ``v_prediction``.

    Raises:
        ConfigError: Something else.
    """
    kind = str(scheduler.config.prediction_type)
    if kind not in ("epsilon", "v_prediction"):
        raise ConfigError(f"prediction type {kind!r}", where="generator.base", allowed="epsilon, v_prediction")
    return kind


@dataclass(frozen=True, slots=True)
class NoisyLatents:
    """What a training step shows the UNet and expects from it, all on the CPU.

    Args:
        latents: ``[B, C, h, w]``, noised.
        timesteps: int64 ``[B]``.
        target: ``[B, C, h, w]``: the noise, or the velocity.
        generators: Of every row, for what else its task draws.
    """

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    generators: list[torch.Generator]

    def errors(self, predicted: Tensor) -> Tensor:
        """Return the mean squared error of every row, float32 ``[B]``."""
        error = F.mse_loss(predicted.float(), self.target.to(predicted.device), reduction="none")
        return error.flatten(1).mean(1)


class LatentCache:
    """Autoencoder moments of every image and, if asked for, of its mirror image: a step's most expensive part.

    Args:
        vae: The base's autoencoder.
        scheduler: The base's own scheduler, for its noise schedule and prediction type.
        flips: Keep mirrored images too.
    """

    def __init__(self, vae: Any, scheduler: Any, *, flips: bool) -> None:
        self.vae, self.scheduler, self.flips = vae, scheduler, flips
        self.timesteps = int(scheduler.config.num_train_timesteps)
        self.kind = prediction_type(scheduler)
        self.moments: list[list[tuple[Tensor, Tensor]]] = []

    def add(self, image: Image) -> None:
        """Encode one more image uint8 ``[H, W, 3]``, of the size to train at."""
        views = [image, image[:, ::-1]] if self.flips else [image]
        self.moments.append([encode_moments(self.vae, view) for view in views])

    def noisy(self, rows: Sequence[Row]) -> NoisyLatents:
        """Sample the rows' latents and add noise, drawn on the CPU so that the device does not matter."""
        generators = [torch.Generator().manual_seed(row.seed) for row in rows]
        pairs = [self._draw(row, generator) for row, generator in zip(rows, generators, strict=True)]
        timesteps = torch.tensor([row.timestep for row in rows])
        latents, noise = (torch.stack(part) for part in zip(*pairs, strict=True))
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = noise if self.kind == "epsilon" else self.scheduler.get_velocity(latents, noise, timesteps)
        return NoisyLatents(noisy, timesteps, target, generators)

    def _draw(self, row: Row, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return scaled latents and noise of a row."""
        mean, std = self.moments[row.index][int(row.flip)]
        latents = (mean + std * torch.randn(mean.shape, generator=generator)) * self.vae.config.scaling_factor
        return latents, torch.randn(mean.shape, generator=generator)
