"""The kernel of a transport problem: built block by block, and the sums over it, by all processes."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

Support = Literal["fp32", "exact", "present"]
Group = dist.ProcessGroup

#: Half of float32's smallest number is ``2^-150``: what is less than that became 0 in the released procedure.
UNDERFLOW = 150.0
#: The kernel's largest entry of a pixel is ``2^HEADROOM``, so that ``2^-150`` of it is still a normal float32.
HEADROOM = 24.0
#: Added to the exponents of the first iteration's weights, whose range is that of the pixels' best classes.
LIFT = 60.0
#: Pixels whose best classes are further apart than this, in log2 of the kernel, need float64, except with a floor.
SPREAD = 120.0
#: On a CPU, entries of a block at most, so that it stays in the caches, and pixels of a block at most: matrix products
#: add up float32 numbers one after the other there, and longer sums lose digits. Elsewhere a block is an image.
BLOCK, STRETCH = 1 << 20, 1 << 14


def blocks_of(values: Tensor) -> list[tuple[int, slice]]:
    """Return ``(image, pixels)`` of blocks that cover ``[B, K, N]``."""
    images, classes, pixels = values.shape
    step = pixels
    if values.device.type == "cpu":
        step = max(64, min(BLOCK // max(1, classes), STRETCH))
    return [(b, slice(p, min(p + step, pixels))) for b in range(images) for p in range(0, pixels, step)]


def row_maxima(values: Tensor) -> Tensor:
    """Return the largest value of every pixel, ``[B, N]``, of float ``[B, K, N]``; NaN where one is NaN."""
    if values.device.type != "cpu" or values.stride(2) != 1 or values.shape[1] < 64:
        return values.amax(1)
    best = values[:, 0].clone()  # class by class, memory is read in order: twice as fast as amax for many classes
    for number in range(1, values.shape[1]):
        torch.maximum(best, values[:, number], out=best)
    return best


def log2_sum(exponents: Tensor) -> Tensor:
    """Return ``log2(sum(2^x))`` over the first dimension; -inf for nothing."""
    return torch.logsumexp(exponents * math.log(2), 0) / math.log(2)


def precise(values: Tensor) -> Tensor:
    """Return `values` in float64, or float32 on devices that have nothing better."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


class Kernel:
    """``E_ij = 2^(M_ij - best_i - alpha nearest_j + HEADROOM)`` with ``M = alpha log p``, and sums over it.

    `best_i`, the pixel's largest ``M``, keeps unsure pixels far from underflow; `nearest_j`, the class's largest
    distance from the pixels' best classes, does so for classes that no pixel comes near, where those are asked for.

    The blocks are built in the first sweep and kept: with support "fp32" on a CPU without the classes that have nothing
    in a block. So at most as much memory is needed as `log_probs` has, or twice that where the numbers ask for float64.

    Args:
        log_probs: float32 or float64 ``[B, K, H, W]``.
        valid: bool ``[B, H, W]``, or None for all.
        alpha: ``log2(e) / temperature``.
        support: As in `genaug_sense.functional.transport`; here it decides about floor, distances and precision.
        group: Processes that sum together, or None.
    """

    def __init__(
        self, log_probs: Tensor, valid: Tensor | None, *, alpha: float, support: Support, group: Group | None = None
    ) -> None:
        self.values, self.alpha, self.group = log_probs.flatten(2), alpha, group
        self.valid = None if valid is None or bool(valid.all()) else valid.flatten(1)
        self.blocks = blocks_of(self.values)
        self.dtype, self.floor = self.values.dtype, -math.inf
        self.nearest: Tensor | None = None
        self.counts: Tensor | None = None
        self._prepare()
        self.total, spread = self._range()
        if support == "fp32":
            self.floor = self.total - UNDERFLOW
        elif spread > SPREAD and self.values.device.type != "mps":
            self.dtype = torch.float64  # what float32 loses beside pixels this unsure could matter
        if support == "exact":
            self.nearest = self._nearest()
        elif support == "present":
            self.counts = self._counts()

    def _prepare(self) -> None:
        """Look at the pixels' best classes, with nothing built."""
        rows = row_maxima(self.values).mul_(self.alpha)
        if not bool(torch.isfinite(rows.sum())):  # NaN would spread; a pixel without any possible class has no place
            odd = ~torch.isfinite(rows)
            self.values = self.values.masked_fill((odd & (rows != -torch.inf)).unsqueeze(1), 0.0)
            self.valid = ~odd if self.valid is None else self.valid & ~odd
        if self.valid is not None:
            rows.masked_fill_(~self.valid, -torch.inf)
        top = float(rows.amax()) if rows.numel() else -math.inf
        #: ``2^(M - scale)`` of pixels' best classes, by block. The LIFT makes room for what is far below the top.
        self.scale = (top if top > -math.inf else 0.0) - LIFT
        weights = (rows - self.scale).clamp_(min=-126.0).exp2_()
        if self.valid is not None:
            weights.masked_fill_(~self.valid, 0.0)
            rows.masked_fill_(~self.valid, torch.inf)
        self._mass, self._lowest = weights.sum(), rows.amin() if rows.numel() else rows.new_tensor(torch.inf)
        self._weights = {n: weights[b, p].clone() for n, (b, p) in enumerate(self.blocks)}
        #: ``M`` of pixels' best classes, by block; +inf for pixels that take no part.
        self._rows = {n: rows[b, p].clone() for n, (b, p) in enumerate(self.blocks)}
        #: The kernel, by block: ``[k, n]`` and the classes it is of, None for all.
        self._parts: dict[int, tuple[Tensor, Tensor | None]] = {}

    def _range(self) -> tuple[float, float]:
        """Return log2 of the mass of all processes' best classes, and how far below it the least sure pixel is."""
        stats = self.gathered(torch.stack([precise(self._mass).log2() + self.scale, precise(self._lowest)]))
        total = float(log2_sum(stats[:, 0]))
        return (total, total - float(stats[:, 1].amin())) if math.isfinite(total) else (0.0, 0.0)

    def _nearest(self) -> Tensor:
        """Return the largest ``log p_ij - log p_i,best`` of every class, float ``[K]``; 0 for impossible classes."""
        tops = [self.values.new_full((self.values.shape[1],), -torch.inf, dtype=self.dtype)]
        tops += [self._exponents(number).amax(1) for number in range(len(self.blocks))]
        highest = self.gathered(torch.stack(tops).amax(0)).amax(0)
        return torch.where(highest > -torch.inf, (highest - HEADROOM) / self.alpha, 0.0)

    def _counts(self) -> Tensor:
        """Return of how many pixels of all processes a class is the most likely one, float ``[K]``; ties count."""
        found = precise(self.values.new_zeros(self.values.shape[1]))
        for number, (image, pixels) in enumerate(self.blocks):
            part, inside = self.values[image, :, pixels], (self._rows[number] < torch.inf).to(self.values.dtype)
            best = part.amax(0).clamp_min_(torch.finfo(part.dtype).min)
            found += precise(inside).sum() + precise(torch.mv((part - best).sign_(), inside))  # -1, or 0
        return self.gathered(found).sum(0)

    def gathered(self, values: Tensor) -> Tensor:
        """Return the `values` of all processes, stacked; every process must call."""
        if self.group is None:
            return values.unsqueeze(0)
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(parts, values.contiguous(), group=self.group)
        return torch.stack(parts)

    def raise_floor(self, total: float) -> None:
        """Build anew, with entries of 0 where the share of a mass of ``2^total`` underflows."""
        self.floor = total - UNDERFLOW
        self._prepare()

    def start(self) -> Tensor:
        """Build the kernel and return log2 of the class sums ``sum_i 2^M_ij`` of all processes, float ``[K]``."""
        sums = precise(self.values.new_zeros(self.values.shape[1]))
        for number in range(len(self.blocks)):
            part, classes = self._built(number), None
            found = precise(torch.mv(part, self._weights.pop(number).to(self.dtype)))
            sums += found
            if self.floor > -math.inf and part.device.type == "cpu":  # elsewhere, looking would wait for the device
                present = found.nonzero().flatten()
                if len(present) < 0.9 * len(part):
                    part, classes = part.index_select(0, present), present
            self._parts[number] = part, classes
        return self._summed(self._shifted(sums.log2()) + (self.scale - HEADROOM))

    def sweep(self, potentials: Tensor) -> Tensor:
        """Return log2 of the class sums ``sum_i 2^(M_ij + f_i)``, up to a constant, float ``[K]``.

        Args:
            potentials: g, float ``[K]`` in log2, -inf for classes without mass; f are then the potentials that give
                every pixel equal mass.
        """
        sums, tiny = torch.zeros_like(potentials), torch.finfo(self.dtype).tiny
        exponents = self._shifted(potentials)
        highest = exponents.amax().clamp_min(torch.finfo(exponents.dtype).min)
        scales = (exponents - highest + 0.8 * self._depth).exp2().to(self.dtype)  # uses the range of the numbers well
        for part, classes in self._parts.values():
            masses = torch.mv(part.t(), scales if classes is None else scales.index_select(0, classes))
            # A mass is 0 only where the pixel is 0 everywhere.
            found = precise(torch.mv(part, masses.clamp_(min=tiny).reciprocal_()))
            if classes is None:
                sums += found
            else:
                sums.index_add_(0, classes, found)
        return self._summed(self._shifted(sums.log2()))

    def _summed(self, exponents: Tensor) -> Tensor:
        return exponents if self.group is None else log2_sum(self.gathered(exponents))

    def _shifted(self, exponents: Tensor) -> Tensor:
        return exponents if self.nearest is None else exponents + precise(self.nearest) * self.alpha

    @property
    def _depth(self) -> float:
        """Exponent of the smallest normal number, without its sign."""
        return -math.log2(torch.finfo(self.dtype).tiny)

    def _exponents(self, number: int) -> Tensor:
        """Return the exponents of a block of the kernel, ``[K, n]``; -inf below the floor."""
        image, pixels = self.blocks[number]
        part, reference = self.values[image, :, pixels].to(self.dtype), HEADROOM - self._rows[number].to(self.dtype)
        if self.floor > -math.inf:
            part = F.threshold(part, self.floor / self.alpha, -math.inf)
        elif self.nearest is not None:
            # Before the multiplication: what it rounds away, times the hundreds that alpha log p can be, would show.
            part = part - self.nearest.unsqueeze(1)
        else:
            return torch.add(reference, part, alpha=self.alpha)
        return torch.add(reference, part, alpha=self.alpha, out=part)

    def _built(self, number: int) -> Tensor:
        """Return a block of the kernel, ``[K, n]``."""
        made = self._exponents(number)
        del self._rows[number]
        if self.floor == -math.inf:
            F.threshold(made, -self._depth, -math.inf, inplace=True)
        # With a floor nothing is below 2^-126: the floor lies UNDERFLOW below a total that no pixel is above.
        return made.exp2_()
