"""The adapter's training task: cached latents, prompts and masks; the noise-prediction loss under the layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from genaug.batch import image_tensor
from genaug.errors import ConfigError, SampleError
from genaug.types import Mask, Sample
from genaug_diffusion.base import vae_factor
from genaug_diffusion.images import generation_size, resize_image, to_model_range
from genaug_diffusion.layout import LayoutPrompt
from genaug_diffusion.starting_noise import StartingNoise
from genaug_diffusion.training import Row
from genaug_matchmask.condition import LayoutConditioner, resize_mask


class LayoutTask:
    """Denoise labelled images under the layout of their masks (MatchMask eq. 4, no caption dropout).

    Everything that does not depend on the step is computed once: autoencoder moments of each image and of its mirror
    image (the most expensive part of a step otherwise), and prompt embeddings.

    Args:
        pipe: The base pipeline.
        conditioner: Turns masks into conditions.
        samples: Labelled samples.
        resolution: Side of the training square in pixels.
        flips: Cache mirrored images too.
        scheduler: The base's own scheduler, for its noise schedule and prediction type.
    """

    def __init__(
        self,
        pipe: Any,
        conditioner: LayoutConditioner,
        samples: Sequence[Sample],
        *,
        resolution: int,
        flips: bool,
        scheduler: Any,
    ) -> None:
        self.pipe, self.conditioner = pipe, conditioner
        self.scheduler, self.factor = scheduler, vae_factor(pipe)
        self.timesteps = int(self.scheduler.config.num_train_timesteps)
        self.kind = str(self.scheduler.config.prediction_type)
        if self.kind not in ("epsilon", "v_prediction"):
            raise ConfigError(f"prediction type {self.kind!r}", where="generator.base", allowed="epsilon, v_prediction")
        self.sizes: list[tuple[int, int]] = []
        self.labels: list[Mask] = []
        self.prompts: list[LayoutPrompt] = []
        self.moments: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
        self.texts: dict[bytes, torch.Tensor] = {}
        for sample in tqdm(samples, desc="encode images", unit="image"):
            if sample.image is None or sample.mask is None:
                raise SampleError("image or mask missing", where=f"sample {sample.id}", allowed="labelled samples")
            size = generation_size(sample.size, resolution, conditioner.options.size_mode)
            self.sizes.append(size)
            prompt = conditioner.prompt(sample.mask, where=f"sample {sample.id}")
            key = prompt.input_ids.numpy().tobytes()
            if key not in self.texts:
                self.texts[key] = conditioner.embed(prompt.input_ids).cpu()
            self.prompts.append(prompt)
            keep = conditioner.options.mask_downsample == "any"  # which looks at every pixel
            self.labels.append(sample.mask if keep else resize_mask(sample.mask, size).numpy())
            image = resize_image(sample.image, size)
            views = [image, image[:, ::-1]] if flips else [image]
            self.moments.append([self._encode(view) for view in views])

    @torch.no_grad()
    def _encode(self, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        vae = self.pipe.vae
        x = to_model_range(image_tensor(image))[None].to(vae.device, vae.dtype)
        posterior = vae.encode(x).latent_dist
        return posterior.mean[0].float().cpu(), posterior.std[0].float().cpu()

    def starting_noise(self) -> StartingNoise:
        """Describe the low frequencies of the images, in all views that are trained on."""
        factor = self.pipe.vae.config.scaling_factor
        return StartingNoise.fit([factor * mean for views in self.moments for mean, _ in views])

    def losses(self, model: nn.Module, rows: Sequence[Row]) -> torch.Tensor:
        """Return the mean squared error of every row, float32 ``[len(rows)]``."""
        unet = self.pipe.unet
        pairs = [self._noisy(row) for row in rows]
        timesteps = torch.tensor([row.timestep for row in rows])
        latents, noise = (torch.stack(part) for part in zip(*pairs, strict=True))
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = noise if self.kind == "epsilon" else self.scheduler.get_velocity(latents, noise, timesteps)
        text = torch.stack([self.texts[self.prompts[row.index].input_ids.numpy().tobytes()] for row in rows])
        layout = self._layout(rows)
        predicted = model(
            noisy.to(unet.device, unet.dtype),
            timesteps.to(unet.device),
            text.to(unet.device, unet.dtype),
            cross_attention_kwargs={"layout": layout},
        ).sample
        error = F.mse_loss(predicted.float(), target.to(unet.device), reduction="none")
        return error.flatten(1).mean(1)

    def _noisy(self, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scaled latents and noise of a row, drawn on the CPU so that the device does not matter."""
        generator = torch.Generator().manual_seed(row.seed)
        mean, std = self.moments[row.index][int(row.flip)]
        latents = (mean + std * torch.randn(mean.shape, generator=generator)) * self.pipe.vae.config.scaling_factor
        return latents, torch.randn(mean.shape, generator=generator)

    def _layout(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Build masks after the flip: nearest takes a cell's top-left pixel, so the order matters."""
        masks = [self.labels[r.index][:, ::-1].copy() if r.flip else self.labels[r.index] for r in rows]
        prompts = [self.prompts[r.index] for r in rows]
        return self.conditioner.masks(masks, prompts, self.sizes[rows[0].index], self.factor)
