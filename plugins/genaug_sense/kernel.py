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
Block = tuple[int, slice]

#: Half of float32's smallest number is ``2^-150``: what is less than that became 0 in the released procedure.
UNDERFLOW = 150.0
#: The kernel's largest entry of a pixel is ``2^HEADROOM``, so that ``2^-150`` of it is still a normal float32.
HEADROOM = 24.0
#: Added to the exponents of the first iteration's weights, whose range is that of the pixels' best classes.
LIFT = 60.0
#: Pixels whose best classes are further apart than this, in log2 of the kernel, need float64, except with a floor.
SPREAD = 120.0
#: Entries of a block. On a CPU a block stays in its caches; elsewhere a block is an image.
BLOCK, LARGE_BLOCK = 1 << 20, 1 << 26


def block_size(values: Tensor) -> int:
    """Return how many entries a block has."""
    return min(BLOCK if values.device.type == "cpu" else LARGE_BLOCK, values[:1].numel())


def blocks_of(values: Tensor) -> list[Block]:
    """Return ``(image, pixels)`` of blocks that cover ``[B, K, N]``."""
    images, classes, pixels = values.shape
    step = max(64, block_size(values) // max(1, classes))
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
    """``E_ij = 2^(M_ij - best_i - shift_j + HEADROOM)`` with ``M = alpha log p``, and sums over it.

    `best_i`, the pixel's largest ``M``, keeps unsure pixels far from underflow; `shift_j` does so for classes that no
    pixel comes near, where those are asked for. Pixels that take no part have zeros, or weights of zero.

    Beside `log_probs` it needs at most as much memory as `log_probs` has.

    Args:
        log_probs: float32 or float64 ``[B, K, H, W]``.
        valid: bool ``[B, H, W]``, or None for all.
        alpha: ``log2(e) / temperature``.
        support: As in `genaug_sense.functional.transport`; here it decides about floor, shifts and precision.
        normalised: Whether every pixel's probabilities sum to 1.
        group: Processes that sum together, or None.
    """

    def __init__(
        self,
        log_probs: Tensor,
        valid: Tensor | None,
        *,
        alpha: float,
        support: Support,
        normalised: bool = True,
        group: Group | None = None,
    ) -> None:
        self.values, self.alpha, self.group = log_probs.flatten(2), alpha, group
        self.valid = None if valid is None else valid.flatten(1)
        self.normalised = normalised
        self.blocks = blocks_of(self.values)
        rows = self._all_rows()
        self.total, spread = self._range(rows)
        self.dtype = self.values.dtype
        if support != "fp32" and spread > SPREAD and self.values.device.type != "mps":
            self.dtype = torch.float64  # what float32 loses beside pixels this unsure could matter
        self.floor, self._limit = -math.inf, math.inf
        self._forget(rows)
        self.shift = self._shift() if support == "exact" else None
        if support == "fp32":
            self._set_floor(self.total)

    def _forget(self, rows: Tensor) -> None:
        """Start with nothing kept."""
        #: ``M`` of the best class of a block's pixels; +inf for pixels that take no part.
        self._rows = {n: rows[image, pixels].to(self.dtype, copy=True) for n, (image, pixels) in enumerate(self.blocks)}
        self._kept: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._room = self.values.numel() if self.dtype == self.values.dtype else 0
        #: How many pixels have one possible class only, by class; blocks are kept without them.
        self._sure = precise(self.values.new_zeros(self.values.shape[1]))

    def _set_floor(self, total: float) -> None:
        """Make the entries 0 whose share of a mass of ``2^total`` underflows."""
        self.floor = total - UNDERFLOW
        # A pixel whose best class leaves less than the floor to all others, rounding errors included, has no other.
        best = 1.001 - math.exp(self.floor / self.alpha)
        self._limit = self.alpha * math.log(best) if self.normalised and 0 < best < 1 else math.inf

    def raise_floor(self, total: float) -> None:
        """Make the entries 0 whose share of a mass of ``2^total`` underflows, from the next sweep on."""
        self._set_floor(total)
        self._forget(self._all_rows())

    def _all_rows(self) -> Tensor:
        """Return ``M`` of every pixel's best class, ``[B, N]``; +inf for pixels that take no part."""
        best = row_maxima(self.values)
        rows = best * self.alpha
        if not bool(torch.isfinite(best.sum())):  # NaN would spread; a pixel without any possible class has no place
            odd = ~torch.isfinite(best)
            rows.masked_fill_(odd, torch.inf)
            self.values = self.values.masked_fill((odd & (best != -torch.inf)).unsqueeze(1), 0.0)
        return rows if self.valid is None else rows.masked_fill_(~self.valid, torch.inf)

    def _range(self, rows: Tensor) -> tuple[float, float]:
        """Return log2 of the mass of all processes' best classes, and how far below it the least sure pixel is."""
        # `where` costs as much as five passes like these, and `logsumexp` of numbers this small ten times exp2's time.
        below = F.threshold(rows.neg(), torch.finfo(rows.dtype).min, torch.inf, inplace=True)
        stats = precise(below.new_tensor([-torch.inf, torch.inf]))
        if below.numel():
            top = -below.amin()
            mass = precise((-top - below).clamp_(min=-126.0).exp2_().sum()).log2() + top
            stats = torch.stack([torch.where(top > -torch.inf, mass, -torch.inf), precise(rows.amin())])
        masses, lowest = self.gathered(stats).unbind(1)
        total = float(log2_sum(masses))
        return (total, total - float(lowest.amin())) if math.isfinite(total) else (0.0, 0.0)

    def _shift(self) -> Tensor | None:
        """Return the shifts of all classes, float ``[K]``: the best pixel of those that no pixel comes near."""
        tops = self.values.new_full((len(self.blocks) + 1, self.values.shape[1]), -torch.inf, dtype=self.dtype)
        for number in range(len(self.blocks)):
            torch.amax(self._relative(number), 1, out=tops[number])
        highest = self.gathered(precise(tops.amax(0))).amax(0) - HEADROOM
        scarce = (highest > -torch.inf) & (highest < -self._depth / 2)
        return torch.where(scarce, highest, 0.0) if bool(scarce.any()) else None

    def gathered(self, values: Tensor) -> Tensor:
        """Return the `values` of all processes, stacked; every process must call."""
        if self.group is None:
            return values.unsqueeze(0)
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(parts, values.contiguous(), group=self.group)
        return torch.stack(parts)

    def counts(self) -> Tensor:
        """Return of how many pixels of all processes a class is the most likely one, float ``[K]``; ties count."""
        best = row_maxima(self.values).clamp_min_(torch.finfo(self.values.dtype).min)
        inside = (self._all_rows() < torch.inf).to(best)
        missed = best.new_zeros(len(self.blocks), self.values.shape[1])
        for number, (image, pixels) in enumerate(self.blocks):
            below = (self.values[image, :, pixels] - best[image, pixels]).sign_()  # -1; 0 for the best classes
            torch.mv(below, inside[image, pixels], out=missed[number])
        return self.gathered(precise(inside).sum() + precise(missed).sum(0)).sum(0)

    def sweep(self, potentials: Tensor | None = None, *, keep: bool = False) -> Tensor:
        """Return log2 of the class sums ``sum_i 2^(M_ij + f_i)`` over the pixels of all processes, float ``[K]``.

        Args:
            potentials: g, float ``[K]`` in log2, -inf for classes without mass; f are then the potentials that give
                every pixel equal mass, and the result is known up to a constant. None for ``f = 0``.
            keep: Keep what is built, as far as there is room, for the next sweep.
        """
        sums = self.values.new_zeros(len(self.blocks), self.values.shape[1], dtype=self.dtype)
        scales = None if potentials is None else self._scales(potentials)
        tiny = torch.finfo(self.dtype).tiny
        for number in range(len(self.blocks)):
            part, classes = self._kept.get(number) or (self._build(number), None)
            if scales is None:
                weights = (self._rows[number] - (self.total - LIFT)).clamp_(max=LIFT).exp2_()
            else:
                weights = torch.mv(part.t(), scales if classes is None else scales[classes])
                weights.clamp_(min=tiny).reciprocal_()  # a pixel that is 0 everywhere may have any weight
            if classes is None:
                torch.mv(part, weights, out=sums[number])
            else:
                sums[number, classes] = torch.mv(part, weights)
            if keep and number not in self._kept:
                self._keep(number, part, sums[number])
        local = precise(sums).sum(0)
        if scales is not None:
            local += torch.where(self._sure > 0, self._sure / scales, 0.0)
        local = local.log2()
        if self.shift is not None:
            local += self.shift
        if potentials is None:
            local += self.total - LIFT - HEADROOM
        return log2_sum(self.gathered(local))

    def _scales(self, potentials: Tensor) -> Tensor:
        """Return ``2^(g_j + shift_j)`` up to a factor that uses the range of the numbers well."""
        exponents = potentials if self.shift is None else potentials + self.shift
        highest = exponents.amax().clamp_min(torch.finfo(exponents.dtype).min)
        return (exponents - highest + 0.8 * self._depth).exp2().to(self.dtype)

    @property
    def _depth(self) -> float:
        """Exponent of the smallest normal number, without its sign."""
        return -math.log2(torch.finfo(self.dtype).tiny)

    def _relative(self, number: int) -> Tensor:
        """Return the exponents ``M_ij - best_i + HEADROOM`` of a block, ``[K, n]``; -inf below the floor."""
        image, pixels = self.blocks[number]
        part, rows = self.values[image, :, pixels].to(self.dtype), self._rows[number]
        if self.floor == -math.inf:
            return torch.add(HEADROOM - rows, part, alpha=self.alpha)
        made = F.threshold(part, self.floor / self.alpha, -math.inf)
        return torch.add(HEADROOM - rows, made, alpha=self.alpha, out=made)

    def _build(self, number: int) -> Tensor:
        """Return a block of the kernel, ``[K, n]``."""
        made = self._relative(number)
        if self.shift is not None:
            made.sub_(self.shift.to(self.dtype).unsqueeze(1))
        if self.floor == -math.inf:
            F.threshold(made, -self._depth, -math.inf, inplace=True)
        # With a floor nothing is below 2^-126: the floor lies UNDERFLOW below a total that no pixel is above.
        return made.exp2_()

    def _keep(self, number: int, part: Tensor, sums: Tensor) -> None:
        """Keep a block while there is room, without the classes and pixels that are known without it."""
        classes, rows = None, self._rows[number]
        if self.floor > -math.inf and part.device.type == "cpu":  # elsewhere, looking would wait for the device
            present = sums.nonzero().flatten()
            if len(present) < 0.75 * len(part):
                part, classes = part.index_select(0, present), present
            sure = rows > self._limit
            unsure = (~sure).nonzero().flatten()
            if len(unsure) < 0.75 * len(rows) and len(part) * len(unsure) <= self._room:
                counts = precise(torch.mv(part, sure.to(part.dtype))) * 2.0**-HEADROOM
                self._sure[slice(None) if classes is None else classes] += counts
                part = part.index_select(1, unsure)
        if part.numel() <= self._room:
            self._room -= part.numel()
            self._kept[number] = (part, classes)
            del self._rows[number]  # nothing is built from them again
