"""Noise to start sampling from that carries low frequencies of images, as the noisiest images of training do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: Cells per side that the low frequencies are kept in, and how many directions of variation.
GRID, DIRECTIONS = 8, 16


class StartingNoise:
    """A Gaussian model of the low frequencies of images' latents, to draw the first noise with.

    At its last timestep T training still shows the UNet ``sqrt(a_T) z + sqrt(1 - a_T) noise`` with ``a_T > 0`` (0.005
    for Stable Diffusion). Averaged over a region the noise shrinks and the image z does not, so the UNet learns to read
    light and colours from there; samples that start from noise alone are therefore all of medium light and colour (Lin
    et al., "Common Diffusion Noise Schedules and Sample Steps Are Flawed", 2024). Here z is put back: its mean over the
    labelled images, plus a random combination of how they differ from it.

    Args:
        mean: ``[C, g, g]`` float32, mean of the latents (scaled as the UNet sees them), averaged in g x g cells.
        directions: ``[R, C, g, g]`` float32, principal components times their standard deviations.
    """

    def __init__(self, mean: Tensor, directions: Tensor) -> None:
        # Contiguous, as they come from a file: a sum in another order ends in other bits.
        self.mean, self.directions = mean.contiguous(), directions.contiguous()

    @classmethod
    def fit(cls, latents: Sequence[Tensor]) -> StartingNoise:
        """Describe images by their scaled latents, each ``[C, h, w]`` of any size."""
        cells = torch.stack([F.adaptive_avg_pool2d(each.float()[None], GRID)[0] for each in latents])
        mean = cells.mean(0)
        rest = (cells - mean).flatten(1)
        _, lengths, vectors = torch.linalg.svd(rest, full_matrices=False)
        rank = min(DIRECTIONS, len(cells) - 1)
        # LAPACK leaves the signs open; a seed must mean the same image everywhere.
        signs = vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
        directions = (vectors * signs * lengths.unsqueeze(1) / max(len(cells) - 1, 1) ** 0.5)[:rank]
        return cls(mean, directions.reshape(-1, *mean.shape))

    def draw(self, size: tuple[int, int], generator: torch.Generator, *, signal: float, spread: float) -> Tensor:
        """Return ``[C, h, w]`` float32 to start from.

        Args:
            size: h and w of the latents.
            generator: Of this sample, on the CPU.
            signal: ``a_t`` (``alphas_cumprod``) at the sampler's first timestep, in [0, 1).
            spread: Factor of the images' own variation; 1 is what training sees.
        """
        noise = torch.randn(len(self.mean), *size, generator=generator)
        weights = spread * torch.randn(len(self.directions), generator=generator)
        cells = self.mean + torch.einsum("r,rchw->chw", weights, self.directions)
        image = F.interpolate(cells[None], size=size, mode="bilinear", align_corners=False)[0]
        return math.sqrt(1 - signal) * noise + math.sqrt(signal) * image

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that define it."""
        return {"mean": self.mean, "directions": self.directions}


def first_signal(scheduler: Any, steps: int) -> float:
    """Return ``alphas_cumprod`` at the first timestep of `steps` sampling steps."""
    scheduler.set_timesteps(steps)
    return float(scheduler.alphas_cumprod[int(scheduler.timesteps[0])])
