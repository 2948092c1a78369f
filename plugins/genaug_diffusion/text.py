"""Prompts as text encodings, computed once each."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

#: Prompts whose encodings are kept. Images come condition by condition, so few are enough, however many there are.
REMEMBERED = 64


class PromptEncoder:
    """The text encoder of a pipeline, with the latest encodings kept.

    Args:
        pipe: A Stable Diffusion pipeline (tokenizer, text encoder).
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        # A tokenizer loaded from bare vocabulary files claims room for 1e30 tokens; the text encoder knows better.
        self.length = int(min(pipe.tokenizer.model_max_length, pipe.text_encoder.config.max_position_embeddings))
        self._embeddings: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def tokens(self, prompt: str) -> torch.Tensor:
        """Return token ids ``[1, T]`` of a text, cut or padded to the encoder's length."""
        options = {"padding": "max_length", "max_length": self.length, "truncation": True, "return_tensors": "pt"}
        ids: torch.Tensor = self.pipe.tokenizer(prompt, **options).input_ids
        return ids

    def fits(self, prompt: str) -> bool:
        """Return True if the encoder sees the whole text."""
        return len(self.pipe.tokenizer(prompt, truncation=False, verbose=False).input_ids) <= self.length

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the text encoding ``[chunks * T, D]`` of token ids ``[chunks, T]``."""
        key = input_ids.numpy().tobytes()
        if key not in self._embeddings:
            encoder = self.pipe.text_encoder
            # Kept for trainings too, and those cannot use what was made in inference mode.
            with torch.inference_mode(False), torch.no_grad():
                self._embeddings[key] = encoder(input_ids.to(encoder.device))[0].flatten(0, 1)
            if len(self._embeddings) > REMEMBERED:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(key)
        return self._embeddings[key]
