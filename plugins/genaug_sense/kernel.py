"""The kernel of a transport problem: built block by block, and the sums over it, by all processes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

Group = dist.ProcessGroup
#: A block of a kernel ``[k, n]``, and which classes its rows are; None for all.
Part = tuple[Tensor, Tensor | None]

#: Half of float32's smallest number is ``2^-150``: what is less than that became 0 in the released procedure.
UNDERFLOW = 150.0
#: Kernels are scaled by ``2^HEADROOM``, so that ``2^-150`` of their largest entries is still a normal float32.
HEADROOM = 24.0
#: Added to the exponents of the first iteration's weights, whose range is that of the pixels' best classes.
LIFT = 60.0
#: Pixels whose best classes are further apart than this, in log2 of the kernel, need float64, unless there is a floor.
SPREAD = 120.0
#: Entries of a block on a CPU, at most, so that it stays in the caches. Elsewhere a block is an image.
BLOCK = 1 << 19
#: Pixels that a CPU's matrix product adds up in float32, one after the other; longer sums lose digits.
STRETCH = 1 << 13


def blocks_of(values: Tensor) -> list[tuple[int, slice]]:
    """Return ``(image, pixels)`` of blocks that cover ``[B, K, N]``."""
    images, classes, pixels = values.shape
    step = max(1, pixels)
    if values.device.type == "cpu":
        step = max(64, BLOCK // max(1, classes))
    return [(b, slice(p, min(p + step, pixels))) for b in range(images) for p in range(0, pixels, step)]


def row_maxima(values: Tensor) -> Tensor:
    """Return the largest value of every pixel, ``[B, N]``, of float ``[B, K, N]``; NaN where one is NaN."""
    if values.device.type != "cpu" or values.stride(2) != 1 or values.shape[1] < 64:
        return values.amax(1)
    best = values[:, 0].clone()  # class by class, memory is read in order: twice as fast as amax for many classes
    for number in range(1, values.shape[1]):
        torch.maximum(best, values[:, number], out=best)
    return best


def class_sums(part: Tensor, weights: Tensor) -> Tensor:
    """Return ``part @ weights`` of ``[K, n]`` and ``[n]``, in the type of `precise`."""
    length = len(weights)
    if length <= STRETCH or part.device.type != "cpu" or part.dtype == torch.float64:
        return precise(torch.mv(part, weights))
    starts = range(0, length, STRETCH)
    sums = [torch.mv(part[:, start : start + STRETCH], weights[start : start + STRETCH]) for start in starts]
    return precise(torch.stack(sums)).sum(0)


def log2_sum(exponents: Tensor) -> Tensor:
    """Return ``log2(sum(2^x))`` over the first dimension; -inf for nothing."""
    return torch.logsumexp(exponents * math.log(2), 0) / math.log(2)


def precise(values: Tensor) -> Tensor:
    """Return `values` in float64, or float32 on devices that have nothing better."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


class Kernel(ABC):
    """``E_ij = 2^(M_ij - a_i - c_j)`` with ``M = alpha log p`` and any a and c that keep it representable.

    Its blocks are built once and kept: at most as much memory as `log_probs` has.

    Args:
        log_probs: float32 or float64 ``[B, K, H, W]``.
        valid: bool ``[B, H, W]``, or None for all.
        alpha: ``log2(e) / temperature``.
        group: Processes that sum together, or None.
    """

    def __init__(self, log_probs: Tensor, valid: Tensor | None, *, alpha: float, group: Group | None = None) -> None:
        self.values, self.alpha, self.group = log_probs.flatten(2), alpha, group
        self.valid = None if valid is None or bool(valid.all()) else valid.flatten(1)
        self.blocks = blocks_of(self.values)
        self.dtype = self.values.dtype
        self.parts: list[Part] = []
        #: c, float ``[K]``; and what log2 of a class's entries is at most.
        self.shift, self.ceilings = self._zeros(), self._zeros() + HEADROOM

    @abstractmethod
    def start(self) -> Tensor:
        """Build the kernel and return log2 of the class sums ``sum_i 2^M_ij`` of all processes, float ``[K]``."""

    def sweep(self, potentials: Tensor) -> Tensor:
        """Return log2 of the class sums ``sum_i 2^(M_ij + f_i)`` of all processes, up to a constant, float ``[K]``.

        Args:
            potentials: g, float ``[K]`` in log2, -inf for classes without mass; f are then the potentials that give
                every pixel equal mass.
        """
        exponents, lowest = potentials + self.shift, torch.finfo(potentials.dtype).min
        # As large as overflow allows, so that pixels that only have small entries are still normal numbers.
        room = torch.minimum(
            0.95 * self._depth - exponents.amax().clamp_min(lowest),
            0.7 * self._depth - (exponents + self.ceilings).amax().clamp_min(lowest),
        )
        scales, tiny = (exponents + room).exp2().to(self.dtype), torch.finfo(self.dtype).tiny
        sums = self._zeros()
        for part, classes in self._ready():
            masses = torch.mv(part.t(), scales if classes is None else scales.index_select(0, classes))
            # A mass is 0 only where the pixel is 0 everywhere.
            found = class_sums(part, masses.clamp_(min=tiny).reciprocal_())
            if classes is None:
                sums += found
            else:
                sums.index_add_(0, classes, found)
        return self._total(sums.log2() + self.shift + room)

    def _ready(self) -> Iterator[Part]:
        yield from self.parts

    def gathered(self, values: Tensor) -> Tensor:
        """Return the `values` of all processes, stacked; every process must call."""
        if self.group is None:
            return values.unsqueeze(0)
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(parts, values.contiguous(), group=self.group)
        return torch.stack(parts)

    def _total(self, exponents: Tensor) -> Tensor:
        return exponents if self.group is None else log2_sum(self.gathered(exponents))

    def _zeros(self) -> Tensor:
        return precise(self.values.new_zeros(self.values.shape[1]))

    @property
    def _depth(self) -> float:
        """Exponent of the smallest normal number, without its sign."""
        return -math.log2(torch.finfo(self.dtype).tiny)

    def _rows(self) -> Tensor:
        """Return ``M`` of the pixels' best classes, ``[B, N]``, -inf for those that take no part.

        Pixels with NaN or +inf, and those without any possible class, take no part.
        """
        rows = row_maxima(self.values).mul_(self.alpha)
        if not bool(torch.isfinite(rows.sum())):
            odd = ~torch.isfinite(rows)
            self.values = self.values.masked_fill((odd & (rows != -torch.inf)).unsqueeze(1), 0.0)  # NaN would spread
            self.valid = ~odd if self.valid is None else self.valid & ~odd
        return rows if self.valid is None else rows.masked_fill_(~self.valid, -torch.inf)


class ClampedKernel(Kernel):
    """A kernel without the entries whose share of the sum over everything is less than ``2^-150``.

    Those that remain lie within what float32 can represent, so a and c are one number. Classes that have nothing in a
    block are not kept of it, on a CPU.
    """

    #: log2 of what entries must be above.
    floor = -math.inf
    _least = 0.0

    def start(self) -> Tensor:
        """Build the kernel and return log2 of the class sums ``sum_i 2^M_ij`` of all processes, float ``[K]``."""
        top = 0.0  # no normalised probability is above
        sums = self._build(top)
        if not 0 < float(sums.sum()) < math.inf:  # NaN, scores far above 1, every pixel next to flat, or no pixel
            top = _largest(self._rows())
            sums = self._build(top)
        everything = self._total(sums.log2() + (top - HEADROOM))
        total = float(log2_sum(everything))
        if not math.isfinite(total):
            return everything  # no pixel takes part
        if total < 0:  # what matters may be so small that it was lost
            if top > total:
                top = total
                sums = self._build(top)
            everything = self._total(sums.log2() + (top - HEADROOM))
        self.ceilings = sums.log2()
        self.floor = total - UNDERFLOW
        self._least = 2.0 ** min(self.floor - top + HEADROOM, self._depth)
        scarce = ((everything > -torch.inf) & (everything < self.floor + 64)).nonzero().flatten()
        if len(scarce):  # where entries below the floor are more than rounding errors: add up again without them
            everything[scarce] = self._total(self._sums_of(scarce).log2() + (top - HEADROOM))
        return everything

    def _build(self, top: float) -> Tensor:
        """Build ``2^(M - top + HEADROOM)``, as far as it is representable, and return its class sums, float ``[K]``."""
        self.parts, sums = [], self._zeros()
        above = inside = self.values.new_tensor(HEADROOM - top)
        lowest = HEADROOM - UNDERFLOW
        for image, pixels in self.blocks:
            if self.valid is not None:
                above = torch.where(self.valid[image, pixels], inside, -torch.inf)
            part, classes = torch.add(above, self.values[image, :, pixels], alpha=self.alpha), None
            F.threshold(part, lowest, -math.inf, inplace=True)
            if part.device.type == "cpu":  # elsewhere, looking would wait for the device
                present = (part.amax(1) != -torch.inf).nonzero().flatten()
                if len(present) < 0.9 * len(part):
                    part, classes = part.index_select(0, present), present
            found = precise(part.exp2_().sum(1))
            if classes is None:
                sums += found
            else:
                sums.index_add_(0, classes, found)
            self.parts.append((part, classes))
            if part.device.type == "cpu":  # the floor lies UNDERFLOW below a sum that is at least as large as this one
                so_far = float(sums.sum())
                lowest = max(lowest, math.log2(so_far) - UNDERFLOW if 0 < so_far < math.inf else lowest)
        return sums

    def _sums_of(self, chosen: Tensor) -> Tensor:
        """Return the sums of some classes, without what is below the floor."""
        sums = self._zeros()
        for part, classes in self.parts:
            which = chosen if classes is None else torch.isin(classes, chosen).nonzero().flatten()
            found = precise(F.threshold(part.index_select(0, which), self._least, 0.0).sum(1))
            sums.index_add_(0, which if classes is None else classes[which], found)
        return sums[chosen]

    def _ready(self) -> Iterator[Part]:
        for part, classes in self.parts:
            if self._least > 0:  # in the first sweep, while the block is at hand
                F.threshold(part, self._least, 0.0, inplace=True)
            yield part, classes
        self._least = 0.0


class FullKernel(Kernel):
    """A kernel with all its entries, or with those of the classes that some pixel sees.

    a is the pixel's largest ``M``, which keeps unsure pixels far from underflow. c does so for classes that no pixel
    comes near: the class's largest distance from the pixels' best classes.

    Where pixels are too far apart for float32 the kernel is float64, and takes twice the memory.

    Args:
        log_probs: float32 or float64 ``[B, K, H, W]``.
        valid: bool ``[B, H, W]``, or None for all.
        alpha: ``log2(e) / temperature``.
        absent: Whether classes count that no pixel comes near; else look at `counts`.
        group: Processes that sum together, or None.
    """

    def __init__(
        self, log_probs: Tensor, valid: Tensor | None, *, alpha: float, absent: bool, group: Group | None = None
    ) -> None:
        super().__init__(log_probs, valid, alpha=alpha, group=group)
        self.absent = absent
        self.rows = self._rows()
        self.top, spread = self._range()
        if spread > SPREAD and self.values.device.type != "mps":
            self.dtype = torch.float64

    def _range(self) -> tuple[float, float]:
        """Return this process's largest ``M``, and how far below all processes' mass the least sure pixel is."""
        top, lowest = -math.inf, math.inf
        if self.rows.numel():
            top, lowest = (
                float(self.rows.amax()),
                float(self.rows.masked_fill(self.rows == -torch.inf, torch.inf).amin()),
            )
        top = top if math.isfinite(top) else 0.0
        # Not `log2_sum`: the exponential of numbers far below 0 takes ten times as long as exp2 of clamped ones.
        mass = (self.rows - top).clamp_(min=-126.0).exp2_().sum().log2() + top
        stats = self.gathered(precise(torch.stack([mass, mass.new_tensor(lowest)])))
        return top, float(log2_sum(stats[:, 0]) - stats[:, 1].amin())

    def counts(self) -> Tensor:
        """Return of how many pixels of all processes a class is the most likely one, float ``[K]``; ties count."""
        found = self._zeros()
        for image, pixels in self.blocks:
            part, inside = self.values[image, :, pixels], (self.rows[image, pixels] > -torch.inf).to(self.values.dtype)
            below = part - part.amax(0).clamp_min_(torch.finfo(part.dtype).min)
            found += precise(inside.sum()) + class_sums(below.sign_(), inside)  # -1; 0 for the best classes
        return self.gathered(found).sum(0)

    def start(self) -> Tensor:
        """Build the kernel and return log2 of the class sums ``sum_i 2^M_ij`` of all processes, float ``[K]``."""
        nearest = self._nearest() if self.absent else None
        if nearest is not None:
            self.shift = precise(nearest) * self.alpha
        sums = self._zeros()
        for number, (image, pixels) in enumerate(self.blocks):
            part = F.threshold(self._exponents(number, nearest), -self._depth, -math.inf, inplace=True).exp2_()
            weights = (self.rows[image, pixels] - (self.top - LIFT)).clamp_(min=-126.0).exp2_().to(self.dtype)
            sums += class_sums(part, weights)
            self.parts.append((part, None))
        return self._total(sums.log2() + self.shift + (self.top - LIFT - HEADROOM))

    def _nearest(self) -> Tensor:
        """Return the largest ``log p_ij - log p_i,best`` of every class, float ``[K]``; 0 for impossible classes."""
        tops = [self.values.new_full((self.values.shape[1],), -torch.inf, dtype=self.dtype)]
        tops += [self._exponents(number, None).amax(1) for number in range(len(self.blocks))]
        highest = self.gathered(torch.stack(tops).amax(0)).amax(0)
        return torch.where(highest > -torch.inf, (highest - HEADROOM) / self.alpha, 0.0)

    def _exponents(self, number: int, nearest: Tensor | None) -> Tensor:
        """Return the exponents of a block, ``[K, n]``; -inf for pixels that take no part."""
        image, pixels = self.blocks[number]
        part, rows = self.values[image, :, pixels].to(self.dtype), self.rows[image, pixels].to(self.dtype)
        above = HEADROOM - rows if self.valid is None else torch.where(rows > -torch.inf, HEADROOM - rows, -torch.inf)
        if nearest is None:
            return torch.add(above, part, alpha=self.alpha)
        # Before the multiplication: what it rounds away, times the hundreds that alpha log p can be, would show.
        part = part - nearest.unsqueeze(1)
        return torch.add(above, part, alpha=self.alpha, out=part)


def _largest(rows: Tensor) -> float:
    """Return the largest number that is not infinite, 0 without any."""
    top = float(rows.amax()) if rows.numel() else 0.0
    return top if math.isfinite(top) else 0.0
