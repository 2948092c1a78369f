"""The adapter's training task: cached latents, prompts and masks; the noise-prediction loss under the layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from genaug.errors import SampleError
from genaug.types import Mask, Sample
from genaug_diffusion.base import vae_factor
from genaug_diffusion.images import resize_image, resize_mask
from genaug_diffusion.latents import LatentCache
from genaug_diffusion.layout import LayoutPrompt
from genaug_diffusion.sizes import generation_size
from genaug_diffusion.starting_noise import StartingNoise
from genaug_diffusion.training import Row
from genaug_matchmask.condition import LayoutConditioner


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
        self.factor = vae_factor(pipe)
        self.cache = LatentCache(pipe.vae, scheduler, flips=flips)
        self.timesteps = self.cache.timesteps
        self.sizes: list[tuple[int, int]] = []
        self.labels: list[Mask] = []
        self.prompts: list[LayoutPrompt] = []
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
            self.cache.add(resize_image(sample.image, size))

    def starting_noise(self) -> StartingNoise:
        """Describe the low frequencies of the images, in all views that are trained on."""
        factor = self.pipe.vae.config.scaling_factor
        return StartingNoise.fit([factor * mean for views in self.cache.moments for mean, _ in views])

    def losses(self, model: nn.Module, rows: Sequence[Row]) -> torch.Tensor:
        """Return the mean squared error of every row, float32 ``[len(rows)]``."""
        unet = self.pipe.unet
        noisy = self.cache.noisy(rows)
        text = torch.stack([self.texts[self.prompts[row.index].input_ids.numpy().tobytes()] for row in rows])
        layout = self._layout(rows)
        predicted = model(
            noisy.latents.to(unet.device, unet.dtype),
            noisy.timesteps.to(unet.device),
            text.to(unet.device, unet.dtype),
            cross_attention_kwargs={"layout": layout},
        ).sample
        return noisy.errors(predicted)

    def _layout(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Build masks after the flip: nearest takes a cell's top-left pixel, so the order matters."""
        masks = [self.labels[r.index][:, ::-1].copy() if r.flip else self.labels[r.index] for r in rows]
        prompts = [self.prompts[r.index] for r in rows]
        return self.conditioner.masks(masks, prompts, self.sizes[rows[0].index], self.factor)
