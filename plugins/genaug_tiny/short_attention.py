"""Attention for training the tiny model on a CPU: few keys, plain matrix products."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from genaug_tiny.architecture import MAX_TOKENS


class ShortAttention:
    """Plain matrix-product attention: on CPUs its backward is far cheaper than that of the fused kernel.

    `key_bias` [B, 1, 1, T] is added to the scores of the cross-attention.
    """

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        key_bias: Tensor | None = None, **_unused: Any,
    ) -> Tensor:  # fmt: skip
        """One attention layer in the calling convention of diffusers: [B, N, C] in, [B, N, C] out."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        batch, tokens, _ = hidden_states.shape

        def heads(x: Tensor) -> Tensor:
            return x.view(batch, x.shape[1], attn.heads, -1).transpose(1, 2)

        q, k, v = heads(attn.to_q(hidden_states)), heads(attn.to_k(context)), heads(attn.to_v(context))
        scores = (q * attn.scale) @ k.transpose(-1, -2)
        if encoder_hidden_states is not None and key_bias is not None:
            scores = scores + key_bias.to(scores.dtype)
        # Autocast would widen the softmax to float32, which doubles the traffic of the largest tensors.
        with torch.autocast("cpu", enabled=False):
            shares = scores.softmax(-1)
        out = (shares @ v).transpose(1, 2).reshape(batch, tokens, -1)
        result: Tensor = attn.to_out[0](out)
        return result


def prompt_keys(present: Tensor) -> Tensor:
    """Score biases that stand for 77-token prompts of class words.

    With a text encoder of independent, position-free tokens, all EOS and PAD tokens are one and the same key, so
    ten keys (the classes, BOS, EOS) with log-counts as biases give exactly the attention over all 77.

    Args:
        present: [B, K] bool, the classes a prompt names.

    Returns:
        [B, 1, 1, K + 2] float32.
    """
    named = torch.where(present, 0.0, -1e4)
    ends = (MAX_TOKENS - 1 - present.sum(1, keepdim=True)).float().log()
    return torch.cat([named, torch.zeros_like(ends), ends], dim=1)[:, None, None]
