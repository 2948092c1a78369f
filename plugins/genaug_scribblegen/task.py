"""The ControlNet's training task: cached latents and prompts; the noise-prediction loss under the scribble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from genaug.errors import SampleError
from genaug.types import Mask, Sample
from genaug_diffusion.images import resize_image, resize_mask
from genaug_diffusion.latents import LatentCache
from genaug_diffusion.sizes import SizeMode, generation_size
from genaug_diffusion.text import PromptEncoder
from genaug_diffusion.training import Row
from genaug_scribblegen.codec import HintCodec
from genaug_scribblegen.prompt import ScribblePrompter


class ScribbleTask:
    """Denoise scribbled images under their hints (eq. 5), some rows under the null condition.

    Everything that does not depend on the step is computed once: autoencoder moments and prompt embeddings. Hints are
    looked up per step, since they take many times the memory of their masks.

    Args:
        pipe: The base pipeline.
        codec: Turns scribbles into hints.
        prompter: Writes their prompts.
        encoder: Encodes them.
        samples: Scribbled samples. Those of whose strokes resizing leaves no pixel are passed over.
        resolution: Side of the training square in pixels.
        size_mode: See `generation_size`.
        flips: Cache mirrored images too.
        dropout: Share of the rows whose scribble, and nothing else, is replaced by the null condition.
        scheduler: The base's own scheduler, for its noise schedule and prediction type.
    """

    def __init__(
        self,
        pipe: Any,
        codec: HintCodec,
        prompter: ScribblePrompter,
        encoder: PromptEncoder,
        samples: Sequence[Sample],
        *,
        resolution: int,
        size_mode: SizeMode,
        flips: bool,
        dropout: float,
        scheduler: Any,
    ) -> None:
        self.pipe, self.codec, self.dropout = pipe, codec, dropout
        self.cache = LatentCache(pipe.vae, scheduler, flips=flips)
        self.timesteps = self.cache.timesteps
        self.sizes: list[tuple[int, int]] = []
        self.scribbles: list[Mask] = []
        self.prompts: list[str] = []
        self.texts: dict[str, Tensor] = {}
        for sample in tqdm(samples, desc="encode images", unit="image"):
            if sample.image is None or sample.mask is None:
                raise SampleError("image or scribble missing", where=f"sample {sample.id}", allowed="both")
            size = generation_size(sample.size, resolution, size_mode)
            prompt = prompter.prompt(sample.mask, size=size, where=f"sample {sample.id}").text
            scribble = resize_mask(sample.mask, size).numpy()
            if not np.isin(scribble, codec.ids).any():
                continue
            self.sizes.append(size)
            if prompt not in self.texts:
                self.texts[prompt] = encoder.embed(encoder.tokens(prompt)).cpu()
            self.prompts.append(prompt)
            self.scribbles.append(scribble)
            self.cache.add(resize_image(sample.image, size))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.scribbles)

    def losses(self, model: nn.Module, rows: Sequence[Row]) -> Tensor:
        """Return the mean squared error of every row, float32 ``[len(rows)]``; `model` is a `ScribbleNetwork`."""
        device = self.pipe.unet.device
        noisy = self.cache.noisy(rows)
        dropped = torch.stack([torch.rand((), generator=each) < self.dropout for each in noisy.generators])
        if not model.training:  # held-out losses are of the scribbles
            dropped = torch.zeros_like(dropped)
        predicted = model(
            noisy.latents.to(device),
            noisy.timesteps.to(device),
            torch.stack([self.texts[self.prompts[row.index]] for row in rows]).to(device),
            self.hints(rows),
            dropped.to(device),
        )
        return noisy.errors(predicted)

    def hints(self, rows: Sequence[Row]) -> Tensor:
        """Return the rows' hints ``[B, C_hint, H, W]``, on the UNet's device."""
        scribbles = [self.scribbles[row.index] for row in rows]
        views = [s[:, ::-1].copy() if row.flip else s for row, s in zip(rows, scribbles, strict=True)]
        # Ids travel to the device, not hints: those take up to hundreds of times the bytes.
        return self.codec.encode(torch.from_numpy(np.stack(views)).to(self.pipe.unet.device))

    def some_hints(self, most: int = 16) -> Tensor:
        """Return the hints of the first examples that have the size of the very first, ``[B, C_hint, H, W]``."""
        rows = [Row(i, False, 0, 0) for i, size in enumerate(self.sizes) if size == self.sizes[0]]
        return self.hints(rows[:most])
