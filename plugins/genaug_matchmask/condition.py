"""From a mask to everything the UNet needs: prompt embedding, attention masks, and the mask that may supervise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from genaug.errors import SampleError
from genaug.labels import LabelSpace
from genaug.types import Mask
from genaug_diffusion.images import resize_mask
from genaug_diffusion.layout import LayoutPrompt, assign_chunks, build_layout_prompt, layout_masks, tokenize_names
from genaug_diffusion.text import PromptEncoder
from genaug_matchmask.config import MatchMaskOptions


class LayoutConditioner:
    """Turns masks into layout conditions for one base model and one class table.

    Args:
        pipe: A Stable Diffusion pipeline (tokenizer, text encoder, UNet).
        labels: Class table; its names are the prompt.
        options: `overflow`, `unknown_class`, `background` and `mask_downsample` are used.
    """

    def __init__(self, pipe: Any, labels: LabelSpace, options: MatchMaskOptions) -> None:
        self.pipe, self.labels, self.options = pipe, labels, options
        skip_background = options.background == "global"
        self.names = {
            i: n for i, n in labels.names.items() if not (skip_background and n.strip().lower() == "background")
        }
        self.encoder = PromptEncoder(pipe)
        self.length = self.encoder.length
        self.tokens = tokenize_names(pipe.tokenizer, self.names, length=self.length)
        self.chunk_of = assign_chunks(self.tokens, length=self.length) if options.overflow == "chunk" else None
        self.levels = len(pipe.unet.config.block_out_channels)

    def prompt(self, mask: Mask, *, where: str) -> LayoutPrompt:
        """Return the prompt of a mask uint8 ``[H, W]``.

        Raises:
            SampleError: The mask has an id without a name and ``unknown_class`` is ``error``.
        """
        ids, counts = np.unique(mask, return_counts=True)
        areas = {int(i): int(c) for i, c in zip(ids, counts, strict=True) if i != self.labels.ignore_index}
        unknown = sorted(areas.keys() - self.labels.names.keys())
        if unknown and self.options.unknown_class == "error":
            raise SampleError(
                f"the mask has ids without a name: {unknown}",
                where=where,
                allowed=f"{list(self.labels.ids)} and the ignore index {self.labels.ignore_index}",
                hint="Name them in labels, or set generator.unknown_class: ignore",
            )
        named = {i: a for i, a in areas.items() if i in self.names}
        return self._build(named)

    def _build(self, areas: Mapping[int, int]) -> LayoutPrompt:
        return build_layout_prompt(self.pipe.tokenizer, self.tokens, areas, length=self.length, chunk_of=self.chunk_of)

    def supervising(self, mask: Mask, prompt: LayoutPrompt) -> Mask:
        """Return `mask` with every class that was not conditioned set to the ignore index."""
        blind = [i for i in np.unique(mask) if int(i) not in self.labels.names or int(i) in prompt.dropped]
        return np.where(np.isin(mask, blind), np.uint8(self.labels.ignore_index), mask)

    def no_foreground(self, mask: Mask) -> bool:
        """Return True if nothing but ignore and classes called "background" is in the mask."""
        ids = [int(i) for i in np.unique(mask) if i != self.labels.ignore_index]
        return all(self.labels.names.get(i, "").strip().lower() == "background" for i in ids)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the text encoding ``[chunks * T, D]`` of token ids ``[chunks, T]``; the latest ones are kept."""
        return self.encoder.embed(input_ids)

    def empty(self) -> torch.Tensor:
        """Return the encoding of the empty prompt, as many chunks as every prompt has."""
        return self.embed(self._build({}).input_ids)

    def masks(
        self, masks: Sequence[Mask], prompts: Sequence[LayoutPrompt], size: tuple[int, int], factor: int
    ) -> dict[str, torch.Tensor]:
        """Return the attention masks of all levels for images generated at `size`.

        Args:
            masks: One uint8 ``[H, W]`` per image, of any sizes; resized to `size` by nearest neighbour first, unless
                ``mask_downsample`` is ``any``, which looks at every pixel. Equal neighbours are built once.
            prompts: Their prompts.
            size: ``(height, width)`` in pixels.
            factor: Pixels per latent cell.
        """
        device = self.pipe.unet.device
        built: list[dict[str, torch.Tensor]] = []
        rows: list[int] = []
        for i, (mask, prompt) in enumerate(zip(masks, prompts, strict=True)):
            if not (i and mask is masks[i - 1]):
                labels = resize_mask(mask, mask.shape if self.options.mask_downsample == "any" else size)
                built.append(
                    layout_masks(
                        labels[None].to(device),
                        prompt.token_class[None].to(device),
                        (size[0] // factor, size[1] // factor),
                        levels=self.levels,
                        downsample=self.options.mask_downsample,
                    )
                )
            rows.append(len(built) - 1)
        return {key: torch.cat([b[key] for b in built])[rows] for key in built[0]}
