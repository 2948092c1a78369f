"""UPC's equations as tensor functions: uncertainty maps, sums over patches, the top k, masks."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from genaug.errors import SampleError
from genaug.pieces import empty_map, pieces
from genaug.predictions import Predictions
from genaug_upc.config import Reduce


@torch.no_grad()
def entropy_map(predictions: Predictions, valid: Tensor | None = None) -> Tensor:
    """Return the entropy of every pixel in nats (UPC, eq. 1): ``-sum_c p_c ln p_c``.

    Args:
        predictions: ``[B, K, H, W]`` of any kind and float dtype; scores are divided by their sum.
        valid: bool ``[B, H, W]``, False on padding; all True by default.

    Returns:
        float32 ``[B, H, W]`` (float64 stays) in ``[0, ln K]``: ``ln K`` where the values are not finite, 0 where
        `valid` is False.

    Raises:
        SampleError: `valid` has another shape.
    """
    most = math.log(predictions.num_classes)
    return _cleaned(predictions.entropy(), most, valid)


@torch.no_grad()
def margin_map(predictions: Predictions, valid: Tensor | None = None) -> Tensor:
    """Return 1 minus the difference of the two largest probabilities (ours), as `entropy_map` does.

    Returns:
        float32 ``[B, H, W]`` (float64 stays) in ``[0, 1]``: 1 where the values are not finite, 0 where `valid` is
        False.
    """
    values = predictions.values
    result = empty_map(values)
    for images, rows in pieces(values):
        probs = Predictions(values[images, :, rows], predictions.kind).probs()
        top, winner = probs.max(1, keepdim=True)
        second = probs.scatter(1, winner, 0.0).amax(1, keepdim=True)
        # 0 * sum: NaN of any class reaches the result, where the two largest values might hide it.
        result[images, rows] = (1 - (top - second) + 0 * probs.sum(1, keepdim=True)).squeeze(1)
    return _cleaned(result, 1.0, valid)


def wrong_map(predicted: Tensor, truth: Tensor, ignore_index: int = 255) -> Tensor:
    """Return where a prediction differs from the truth: the oracle of UPC's Table 7, for ablations only.

    Args:
        predicted: int64 ``[B, H, W]`` class indices.
        truth: int64 ``[B, H, W]``.
        ignore_index: A pixel that either of them ignores is not wrong.

    Returns:
        float32 ``[B, H, W]``, 1 at a wrong pixel, else 0; an `uncertainty` like the others.
    """
    known = (predicted != ignore_index) & (truth != ignore_index)
    return ((predicted != truth) & known).float()


def _cleaned(values: Tensor, most: float, valid: Tensor | None) -> Tensor:
    values = values.nan_to_num_(nan=most, posinf=most, neginf=most).clamp_(0.0, most)
    if valid is None:
        return values
    if valid.shape != values.shape:
        found = f"valid of shape {tuple(valid.shape)}"
        raise SampleError(found, where="uncertainty", allowed=str(tuple(values.shape)))
    return values.masked_fill_(~valid, 0.0)


def patch_bounds(size: int, grid: int) -> tuple[int, ...]:
    """Return the ``grid + 1`` borders ``floor(r * size / grid)``: every pixel in one patch, sizes differ by at most 1.

    Raises:
        SampleError: More patches than pixels, or fewer than one.
    """
    if not 1 <= grid <= size:
        raise SampleError(f"a grid of {grid} patches over {size} pixels", where="upc", allowed=f"1 to {size}")
    return tuple(r * size // grid for r in range(grid + 1))


def patch_scores(uncertainty: Tensor, grid: int, reduce: Reduce = "sum") -> Tensor:
    """Return the uncertainty of every patch (UPC, eq. 3).

    Args:
        uncertainty: ``[B, H, W]``, any dtype; added up in float32 and float64, as half precision overflows at 65504.
        grid: Patches per side, N.
        reduce: ``sum``, or ``mean``: the sum over the patch's area, padding included.

    Returns:
        float32 ``[B, N, N]``. Rounded only here, so that patches of equal content have equal values.
    """
    if uncertainty.ndim != 3:
        raise SampleError(f"an uncertainty map of shape {tuple(uncertainty.shape)}", allowed="[B, H, W]")
    height, width = uncertainty.shape[1:]
    rows, columns = patch_bounds(height, grid), patch_bounds(width, grid)
    # Columns of a patch are short enough for float32, and five times faster in it; whole patches are not.
    first = torch.float64 if uncertainty.dtype == torch.float64 else torch.float32
    sums = _sums(_sums(uncertainty, 1, rows, first), 2, columns, torch.float64)
    if reduce == "mean":
        areas = torch.outer(*(torch.tensor(bounds, dtype=sums.dtype).diff() for bounds in (rows, columns)))
        sums = sums / areas.to(sums.device, non_blocking=True)
    return sums.float()


def _sums(values: Tensor, dim: int, bounds: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Add up the stretches between `bounds`."""
    lengths = [after - before for before, after in pairwise(bounds)]
    parts: tuple[Tensor, ...] = torch.split(values, lengths, dim)
    return torch.stack([part.sum(dim, dtype=dtype) for part in parts], dim)


def patch_ranks(scores: Tensor) -> Tensor:
    """Return each patch's place in the descending order of `scores`; ties go to the lower row-major index.

    Args:
        scores: float ``[B, N, N]``; NaN counts as the largest.

    Returns:
        int64 ``[B, N * N]``, 0 for the most uncertain patch. The top k are those with a rank below k, so a larger k
        only adds patches.
    """
    order = scores.flatten(1).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)


def patch_masks(chosen: Tensor, size: tuple[int, int]) -> Tensor:
    """Grow chosen patches to pixels (UPC, eq. 4).

    Args:
        chosen: bool ``[..., N, N]``.
        size: ``(height, width)`` in pixels.

    Returns:
        bool ``[..., H, W]``.
    """
    rows, columns = (_patch_of_pixel(length, chosen.shape[-1], chosen.device) for length in size)
    return chosen.index_select(-1, columns).index_select(-2, rows)  # whole rows are copied last


def _patch_of_pixel(size: int, grid: int, device: torch.device) -> Tensor:
    """Return the patch that each of `size` pixels lies in: the largest r with ``floor(r * size / grid) <= pixel``.

    The inverse of `patch_bounds`, computed on the device: no copy to wait for.
    """
    patch_bounds(size, grid)
    return ((torch.arange(size, device=device) + 1) * grid - 1) // size


def ignored_share(targets: Tensor, grid: int, ignore_index: int = 255, valid: Tensor | None = None) -> Tensor:
    """Return the share of pixels of every patch that carry no label.

    Args:
        targets: int64 ``[M, H, W]``.
        grid: Patches per side, N.
        ignore_index: Label of pixels that say nothing.
        valid: bool ``[M, H, W]``, False on padding.

    Returns:
        float32 ``[M, N, N]`` in ``[0, 1]``.
    """
    ignored = targets == ignore_index
    if valid is not None:
        ignored |= ~valid
    return patch_scores(ignored, grid, "mean")
