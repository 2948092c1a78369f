"""Cross-entropy towards distributions that are never written out: not in the forward pass, and not kept for backward.

For logits z and targets ``t = softmax(log_p / temperature + g)`` the loss of a pixel is ``LSE(z) - sum_j t_j z_j``, its
gradient ``softmax(z) - t``. Both passes go through the pixels piece by piece and make the targets anew; between them
only the arguments, which exist anyway, and two numbers a pixel are kept.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genaug.pieces import pieces
from genaug.predictions import IMPOSSIBLE, SoftTargets, full

_LN2, _LOG2E = math.log(2), 1 / math.log(2)


def soft_losses(values: Tensor, soft: SoftTargets, ignored: Tensor, *, logits: bool) -> Tensor:
    """Return ``-sum_j t_j log q_j`` of every pixel in nats, float32 (float64 stays) ``[B, H, W]``, 0 where ignored.

    Under ``torch.compile``, whose kernels write nothing in between out either, and for targets that need a gradient of
    their own, it is computed as the formula stands.

    Args:
        values: The student's logits or log-probabilities ``[B, K, H, W]``, any float dtype.
        soft: Targets of that shape; those of ignored pixels may be NaN.
        ignored: bool ``[B, H, W]``. There, and where no gradient arrives, the gradient is 0 whatever the numbers are.
        logits: Which of the two `values` are.
    """
    with torch.autocast(values.device.type, enabled=False):  # it would choose a type for each operation
        if torch.compiler.is_compiling() or soft.log_probs.requires_grad or soft.offsets.requires_grad:
            return _written_out(values, soft, ignored, logits)
        given = (values, soft.log_probs, soft.offsets, soft.floor, ignored, soft.temperature, logits)
        losses: Tensor = _SoftCrossEntropy.apply(*given)[0]  # type: ignore[no-untyped-call]
        return losses


def _written_out(values: Tensor, soft: SoftTargets, ignored: Tensor, logits: bool) -> Tensor:
    log_probs = full(values).log_softmax(1) if logits else full(values)
    targets = soft.dense().masked_fill(ignored.unsqueeze(1), 0.0)
    # A share of 0 times -inf would be NaN.
    return -(targets * log_probs.clamp_min(IMPOSSIBLE)).sum(1).masked_fill(ignored, 0.0)


class _SoftCrossEntropy(torch.autograd.Function):
    """Losses, and log2 of the sums that both softmaxes divide by (of the students' for logits only)."""

    @staticmethod
    def forward(
        values: Tensor,
        log_probs: Tensor,
        offsets: Tensor,
        floor: Tensor | float,
        ignored: Tensor,
        temperature: float,
        logits: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        soft, dtype = SoftTargets(log_probs, offsets, temperature, floor), _common(values, log_probs)
        losses, own, theirs = (torch.zeros(ignored.shape, dtype=dtype, device=values.device) for _ in range(3))
        for images, rows in pieces(values):
            part, exponents = values[images, :, rows].to(dtype), _exponents(soft, images, rows, dtype)
            best = exponents.amax(1, keepdim=True)
            shares = _exp2(exponents.sub_(best))
            total = shares.sum(1)
            theirs[images, rows] = best.squeeze(1) + total.log2()
            if logits:
                best = part.amax(1, keepdim=True)
                part = part.sub(best).clamp_min_(IMPOSSIBLE)
                total_own = _exp2(part.mul(_LOG2E)).sum(1).log2_()
                own[images, rows] = best.squeeze(1) * _LOG2E + total_own
                losses[images, rows] = total_own * _LN2
            else:
                part = part.clamp_min(IMPOSSIBLE)
            losses[images, rows] -= shares.mul_(part).sum(1) / total
        return losses.masked_fill_(ignored, 0.0), own, theirs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        values, log_probs, offsets, floor, ignored, temperature, logits = inputs
        _, own, theirs = output
        ctx.mark_non_differentiable(own, theirs)
        ctx.save_for_backward(values, log_probs, offsets, ignored, own, theirs)
        ctx.floor, ctx.temperature, ctx.logits = floor, temperature, logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, log_probs, offsets, ignored, own, theirs = ctx.saved_tensors
        soft = SoftTargets(log_probs, offsets, ctx.temperature, ctx.floor)
        with torch.autocast(values.device.type, enabled=False):
            if torch.is_grad_enabled():  # of this gradient another one will be taken
                losses = _written_out(values, soft, ignored, ctx.logits)
                (result,) = torch.autograd.grad(losses, values, gradients[0], create_graph=True)
                return result, *[None] * 6
            result, dtype = torch.empty_like(values), _common(values, log_probs)
            weights = gradients[0].masked_fill(ignored, 0.0)
            void = (weights == 0) & ~torch.isfinite(own + theirs)  # 0 times NaN would be NaN
            voids = values.device.type != "cpu" or bool(void.any())
            for images, rows in pieces(values):
                part = values[images, :, rows]
                sums, sums_own, weight = (x[images, rows].unsqueeze(1) for x in (theirs, own, weights))
                slope = _exp2(_exponents(soft, images, rows, dtype).sub_(sums)).neg_()
                if ctx.logits:
                    slope += _exp2(part.to(dtype).mul(_LOG2E).sub_(sums_own))
                else:
                    slope *= part >= IMPOSSIBLE
                slope *= weight
                result[images, :, rows] = slope.masked_fill_(void[images, rows].unsqueeze(1), 0.0) if voids else slope
        return result, *[None] * 6


def _exponents(soft: SoftTargets, images: slice, rows: slice, dtype: torch.dtype) -> Tensor:
    """Return a piece of the exponents of the targets, to base 2 and before they are normalised."""
    return soft.map(lambda own: own[images, :, rows].to(dtype)).exponents().mul_(_LOG2E)


def _common(values: Tensor, log_probs: Tensor) -> torch.dtype:
    return torch.promote_types(full(values[:0]).dtype, log_probs.dtype)


def _exp2(exponents: Tensor) -> Tensor:
    """Return ``2^x`` in place; 1e-38 for less than that, because denormal numbers take a CPU several times as long."""
    return exponents.clamp_(min=-126.0).exp2_()
