"""Entropic optimal transport from pixels to classes, kept as one number a class. Pure tensor functions.

The plan between n pixels (mass 1/n each) and K classes (mass b_j) for the cost ``-log p`` is
``p_ij^(1/beta) exp(f_i + g_j)``. A target is a row of it divided by its sum, so f drops out, and the K potentials g are
all that has to be kept: ``target_i = softmax_j(log p_ij / beta + g_j)``.

Exponents are base 2 inside (``M = log2(p) / beta``), because exp2 is several times faster than exp on CPUs.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from genaug.errors import ConfigError, SampleError
from genaug.predictions import SoftTargets, full
from genaug_sense.kernel import ClampedKernel, FullKernel, Group, blocks_of, precise

Support = Literal["fp32", "exact", "present"]


def transport(
    log_probs: Tensor,
    *,
    valid: Tensor | None = None,
    temperature: float = 0.05,
    iterations: int = 3,
    support: Support = "fp32",
    min_pixels: int = 1,
    marginal: Tensor | None = None,
    group: Group | None = None,
) -> SoftTargets:
    """Share the pixels of a batch out among the classes (SENSE's Sinkhorn).

    Iterations go classes first, pixels last: ``g <- log b - LSE_i(M_ij + f_i)``, then
    ``f <- log(1/n) - LSE_j(M_ij + g_j)``. So every target sums to 1, while the classes' shares are only approached.

    Args:
        log_probs: float ``[B, K, H, W]`` log-probabilities, -inf allowed. They must be normalised: a constant added
            to a pixel changes the result of finitely many iterations. float64 is computed in float64, anything else
            in float32.
        valid: bool ``[B, H, W]``, the pixels that take part; all by default. Pixels with NaN or +inf never do.
        temperature: beta, above 0 (released code: 0.05).
        iterations: T, at least 1 (released code: 3).
        support: Which entries may get mass. ``exact``: all. ``present``: those of the classes that are the most likely
            one of at least `min_pixels` pixels (a tie counts for each). ``fp32``: those that the released float32
            procedure does not lose, ``M_ij - LSE(M) >= -150`` with the sum over all pixels, classes and processes.
        min_pixels: See `support`.
        marginal: float ``[K]``, the classes' shares b, not negative, of any sum; uniform by default.
        group: Processes whose pixels are shared out together; every one of them must call.

    Returns:
        The targets of all pixels, those outside `valid` included. Classes without mass have the offset `never`; if all
        have it, there is no plan.

    Raises:
        ConfigError: A parameter out of range, or a marginal that does not fit.
        SampleError: Shapes that do not fit.
    """
    _check(log_probs, valid, temperature, iterations, support, marginal)
    log_probs = full(log_probs.detach())
    shares = log_probs.new_ones(log_probs.shape[1]) if marginal is None else marginal.to(log_probs)
    kernel: ClampedKernel | FullKernel
    # Nothing made in here leaves but the potentials, from which ordinary tensors are made below.
    with torch.inference_mode(), torch.autocast(log_probs.device.type, enabled=False):
        alpha, shares, floor = math.log2(math.e) / temperature, precise(shares).log2(), -math.inf
        if support == "fp32":
            kernel = ClampedKernel(log_probs, valid, alpha=alpha, group=group)
        else:
            kernel = FullKernel(log_probs, valid, alpha=alpha, absent=support == "exact", group=group)
            if support == "present":
                shares = shares.masked_fill(kernel.counts() < min_pixels, -torch.inf)
        potentials = _given(shares, kernel.start())
        for _ in range(iterations - 1):
            potentials = _given(shares, kernel.sweep(potentials))
        if isinstance(kernel, ClampedKernel):
            floor = kernel.floor * math.log(2)
    used = torch.isfinite(potentials)
    lowest = potentials.masked_fill(~used, torch.inf).amin()
    offsets = ((potentials - lowest) * math.log(2)).to(log_probs.dtype).masked_fill(~used, never(log_probs.dtype))
    return SoftTargets(log_probs, offsets, temperature, floor)


def _given(shares: Tensor, sums: Tensor) -> Tensor:
    return torch.where(torch.isfinite(sums), shares - sums, -torch.inf)


def never(dtype: torch.dtype) -> float:
    """Return the offset of classes without mass.

    It is finite: a distribution that is one-hot on such a class (pasted ground truth) stays what it is, while any other
    possible class leaves exactly nothing to it.
    """
    return torch.finfo(dtype).min / 4


def strongest(targets: SoftTargets) -> tuple[Tensor, Tensor]:
    """Return every target's largest entry, float ``[B, H, W]``, and its class, int64 ``[B, H, W]``.

    The entry is 0 where no class may have mass. Needs no memory of the size of the targets.
    """
    values = targets.log_probs.flatten(2)
    offsets, impossible = targets.offsets.view(-1, 1), never(values.dtype) / 2
    top = values.new_empty(len(values), values.shape[2])
    classes = torch.empty_like(top, dtype=torch.int64)
    with torch.no_grad():
        for image, pixels in blocks_of(values):
            part = values[image, :, pixels] / targets.temperature
            F.threshold(part, float(targets.floor), -torch.inf, inplace=True).add_(offsets)
            best, classes[image, pixels] = part.max(0)
            others = part.sub_(best).mul_(math.log2(math.e)).clamp_(min=-126.0).exp2_().sum(0)
            top[image, pixels] = torch.where(best > impossible, others.reciprocal(), 0.0)
    shape = (len(values), *targets.log_probs.shape[2:])
    return top.view(shape), classes.view(shape)


def _check(
    log_probs: Tensor,
    valid: Tensor | None,
    temperature: float,
    iterations: int,
    support: str,
    marginal: Tensor | None,
) -> None:
    if log_probs.ndim != 4 or not log_probs.is_floating_point():
        found = f"log-probabilities {log_probs.dtype} of shape {tuple(log_probs.shape)}"
        raise SampleError(found, where="transport", allowed="float [B, K, H, W]")
    images, classes, *size = log_probs.shape
    if valid is not None and tuple(valid.shape) != (images, *size):
        raise SampleError(f"valid of shape {tuple(valid.shape)}", where="transport", allowed=str((images, *size)))
    if not temperature > 0 or iterations < 1:
        found = f"temperature {temperature}, {iterations} iterations"
        raise ConfigError(found, where="transport", allowed="a temperature above 0 and at least one iteration")
    if support not in get_args(Support):
        raise ConfigError(f"support {support!r}", where="transport", allowed=", ".join(get_args(Support)))
    if marginal is not None and tuple(marginal.shape) != (classes,):
        raise ConfigError(
            f"a marginal of shape {tuple(marginal.shape)} for {classes} classes",
            where="transport",
            allowed="one share a class",
        )
