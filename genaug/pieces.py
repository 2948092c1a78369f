"""Class values ``[B, K, H, W]`` reduced to one number a pixel, piece by piece: nothing of their size is made."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

#: Class values worked on at once. On a CPU a piece and its temporaries stay in the cache (6 times faster than whole
#: batches at 21 classes and 513x513 pixels); elsewhere the number bounds memory.
PIECE_CPU, PIECE = 1 << 17, 1 << 26
_LN2, _LOG2E = math.log(2), 1 / math.log(2)


def pieces(values: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of images and rows that cover ``[B, K, H, W]``; a piece is ``values[images, :, rows]``.

    On a CPU a piece never holds two images: vector code treats the last values of a tensor in another way than the
    rest, and an image's values must not depend on which images it shares a batch with.
    """
    count, classes, height, width = values.shape
    limit = PIECE_CPU if values.device.type == "cpu" else PIECE
    rows = max(1, min(height, limit // max(1, classes * width)))
    images = 1 if values.device.type == "cpu" or rows < height else max(1, limit // max(1, classes * height * width))
    for first in range(0, count, images):
        for top in range(0, height, rows):
            yield slice(first, first + images), slice(top, top + rows)


def empty_map(values: Tensor) -> Tensor:
    """Return an uninitialised ``[B, H, W]`` for `values`, float32 (float64 stays)."""
    return torch.empty(len(values), *values.shape[2:], dtype=_wide(values), device=values.device)


@torch.no_grad()
def finite_map(values: Tensor, *, lowest: bool = False) -> Tensor:
    """Return bool ``[B, H, W]``: where no value of float ``[B, K, H, W]`` is NaN or infinite.

    Args:
        values: See above.
        lowest: Whether -inf counts as finite.
    """
    result = torch.empty(len(values), *values.shape[2:], dtype=torch.bool, device=values.device)
    for images, rows in pieces(values):
        part = values[images, :, rows]
        if lowest:
            part = part.clamp_min(torch.finfo(part.dtype).min)
        result[images, rows] = (part - part).sum(1) == 0  # NaN - NaN and inf - inf are NaN, all else is 0
    return result


@torch.no_grad()
def entropy_map(values: Tensor, *, logarithmic: bool) -> Tensor:
    """Return the entropy of every pixel in nats, without a gradient.

    Args:
        values: float ``[B, K, H, W]``.
        logarithmic: Whether they are logits or log-probabilities; else weights that are not negative. Neither need be
            normalised.

    Returns:
        float32 ``[B, H, W]`` (float64 stays) in ``[0, ln K]``; NaN where a value is NaN or +inf, or nothing possible.
    """
    result, most = empty_map(values), math.log(max(1, values.shape[1]))
    for images, rows in pieces(values):
        part = values[images, :, rows].to(result.dtype)
        result[images, rows] = (_of_logarithms(part) if logarithmic else _of_weights(part)).clamp_(0.0, most)
    return result


def _of_logarithms(values: Tensor) -> Tensor:
    """Return ``ln S - sum w ln w / S`` for ``w = exp(values)`` and their sum S over dim 1."""
    # In base 2: torch's exp2 takes a third of the time of its exp on a CPU, and exp is most of the work.
    # Below -1e4 a weight is 0 anyway; the bound keeps -inf (a class that is ruled out) from making 0 * inf.
    shifted = (values - values.amax(1, keepdim=True)).mul_(_LOG2E).clamp_min_(-1e4)
    weights = shifted.exp2()
    total = weights.sum(1)
    return total.log2().sub_(weights.mul_(shifted).sum(1).div_(total)).mul_(_LN2)


def _of_weights(values: Tensor) -> Tensor:
    weights = values.clamp_min(0)
    total = weights.sum(1)
    return total.log().add_(torch.special.entr(weights).sum(1).div_(total))


def _wide(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32
