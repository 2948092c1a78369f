"""Rectified cross-attention with per-token fusion (MatchMask eqs. 2 and 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

AlphaPool = Literal["token", "mean"]
Layout = Mapping[str, torch.Tensor]


class RectifiedAttnProcessor(nn.Module):
    """Cross-attention processor: ``a * O_ori + (1 - a) * O_rec`` with ``a = sigmoid(w x + b)`` (eq. 5).

    ``O_ori`` is the base model's attention, ``O_rec`` the same with every pixel restricted to the tokens of its own
    class and the global ones. Without a layout the processor computes exactly the base model's attention.

    Two SDPA calls are used because one call over a doubled batch and a fused probability map gain nothing
    (measured on a CPU at the Stable Diffusion 1.4 size) and are further from the base model's bits.

    Args:
        dim: Channels of the block's hidden states.
        alpha_pool: ``token``: one weight per pixel (the paper's "each token ... dynamically"); ``mean``: one per image.
    """

    def __init__(self, dim: int, alpha_pool: AlphaPool = "token") -> None:
        super().__init__()
        # The paper names no activation for this weight; the sigmoid makes eq. 5 a convex mix, 0.5 at the start.
        # (skip_init: nn.Linear's own start, overwritten here, would draw from the global random stream.)
        self.alpha = nn.utils.skip_init(nn.Linear, dim, 1)  # type: ignore[no-untyped-call]
        nn.init.zeros_(self.alpha.weight)
        nn.init.zeros_(self.alpha.bias)
        self.alpha_pool = alpha_pool

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,  # noqa: ARG002 (part of the processor signature)
        layout: Layout | None = None,
    ) -> torch.Tensor:
        """Attend ``[B, N, C]`` to the text ``[B, T, D]``.

        Args:
            attn: The block's ``Attention`` module.
            hidden_states: ``[B, N, C]``.
            encoder_hidden_states: ``[B, T, D]``.
            attention_mask: Additive mask over text tokens, as diffusers passes it, or None.
            temb: Unused; part of the processor signature.
            layout: ``str(N)`` -> bool ``[M, 1, N, T]`` (`genaug_diffusion.layout.layout_masks`), with M = B, or
                M = B / 2 for a guided batch ``[unconditional, conditional]`` whose first half has no layout.
        """
        batch, count, _ = hidden_states.shape
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, text.shape[1], batch)
            attention_mask = attention_mask.view(batch, attn.heads, -1, attention_mask.shape[-1])

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.view(batch, x.shape[1], attn.heads, -1).transpose(1, 2)

        q, k, v = heads(attn.to_q(hidden_states)), heads(attn.to_k(text)), heads(attn.to_v(text))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        if layout is not None:
            out = self._fuse(out, q, k, v, hidden_states, _mask_for(layout, batch, count))
        out = out.transpose(1, 2).reshape(batch, count, -1).to(q.dtype)
        out = attn.to_out[1](attn.to_out[0](out))
        result: torch.Tensor = out / attn.rescale_output_factor
        return result

    def _fuse(
        self,
        out: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        hidden_states: torch.Tensor,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        """Mix in the rectified attention for the last ``len(mask)`` rows; the rows before have no layout."""
        rows = slice(out.shape[0] - mask.shape[0], None)
        logit = self.alpha(hidden_states[rows].to(self.alpha.weight.dtype))
        if self.alpha_pool == "mean":
            logit = logit.mean(1, keepdim=True)
        a = torch.sigmoid(logit)[:, None].to(out.dtype)  # [M, 1, N, 1]
        rectified = F.scaled_dot_product_attention(q[rows], k[rows], v[rows], attn_mask=mask)
        # a * ori + (1 - a) * rec, written so that equal attentions give their value back bit for bit
        mixed = rectified + a * (out[rows] - rectified)
        return mixed if mask.shape[0] == out.shape[0] else torch.cat([out[: -mask.shape[0]], mixed])


def _mask_for(layout: Layout, batch: int, count: int) -> torch.Tensor:
    mask = layout.get(str(count))
    if mask is None:
        raise KeyError(
            f"the layout has no masks for {count} pixels, only for {', '.join(layout)}: built for another size"
        )
    if mask.shape[0] not in (batch, batch // 2) or (mask.shape[0] != batch and batch % 2):
        raise ValueError(
            f"the layout is for {mask.shape[0]} images, the batch has {batch} rows: allowed are all or half"
        )
    return mask


class LayoutIgnoringProcessor:
    """Wraps a self-attention processor so that it accepts a layout; diffusers would warn at every call otherwise."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        layout: Layout | None = None,  # noqa: ARG002
    ) -> torch.Tensor:
        """Attend as the wrapped processor does."""
        result: torch.Tensor = self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        return result
