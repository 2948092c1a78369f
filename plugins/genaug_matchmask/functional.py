"""Equations 7 and 8 of MatchMask: which pixels of a synthetic sample to trust, by comparing its siblings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genaug.errors import SampleError
from genaug.types import Mask

# Pixels per block: the K slices of a block and their counters stay in the processor's cache together.
_BLOCK = 1 << 16


def majority(predictions: NDArray[np.uint8]) -> Mask:
    """Return the most frequent prediction at each pixel (MatchMask, eq. 7); a tie goes to the smallest id.

    Counts agreements between pairs of predictions, which costs O(K² H W) and no memory per class; one-hot
    voting would cost O(C H W) in both.

    Args:
        predictions: uint8 ``[K, H, W]`` class ids, K >= 1.

    Returns:
        uint8 ``[H, W]``.

    Raises:
        SampleError: Another dtype or shape.
    """
    _check_predictions(predictions)
    K, H, W = predictions.shape
    flat = predictions.reshape(K, H * W)
    winner = np.empty(H * W, np.uint8)
    for start in range(0, H * W, _BLOCK):
        block = flat[:, start : start + _BLOCK]
        winner[start : start + _BLOCK] = _vote(block)
    return winner.reshape(H, W)


def _vote(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Vote on ``[K, N]``: the largest key (votes, then 255 - id) wins, so that no branch decides a tie."""
    K = len(block)
    votes = np.ones(block.shape, np.uint8 if K < 256 else np.uint32)
    for i in range(K):
        for j in range(i + 1, K):
            same = (block[i] == block[j]).view(np.uint8)
            votes[i] += same
            votes[j] += same
    key_type: type[np.unsignedinteger[Any]] = np.uint16 if K < 256 else np.uint32
    best = np.zeros(block.shape[1], key_type)
    for i in range(K):
        key = votes[i].astype(key_type)
        key <<= 8
        key |= ~block[i]  # 255 - id
        np.maximum(best, key, out=best)
    return ~best.astype(np.uint8)


def relative_filter(
    predictions: NDArray[np.uint8], mask: Mask, ignore_index: int, *, winner: Mask | None = None
) -> NDArray[np.uint8]:
    """Ignore the pixels of each image whose prediction differs from the majority (MatchMask, eq. 8).

    Predictions are compared with one another and never with `mask`: what all K images show, right or wrong,
    is kept. With K = 1 nothing is ignored; with K = 2 every disagreement goes to the smaller id.

    Args:
        predictions: uint8 ``[K, H, W]``, the class ids a segmenter sees in each of the K images of one mask.
        mask: uint8 ``[H, W]`` the mask they were made from, or ``[K, H, W]`` where the K masks already
            differ in ignored pixels.
        ignore_index: Id that means "do not train here".
        winner: ``majority(predictions)`` if the caller has it already.

    Returns:
        uint8 ``[K, H, W]``: `mask` with more pixels set to `ignore_index`.

    Raises:
        SampleError: Dtypes or shapes that do not fit.
    """
    if mask.dtype != np.uint8 or mask.shape not in (predictions.shape, predictions.shape[1:]):
        raise SampleError(
            f"mask {mask.dtype} {mask.shape}",
            where="relative filter",
            allowed=f"uint8 of the predictions' shape {predictions.shape} or {predictions.shape[1:]}",
        )
    agrees = predictions == (majority(predictions) if winner is None else winner)
    return np.where(agrees, mask, np.uint8(ignore_index))


def _check_predictions(predictions: NDArray[np.uint8]) -> None:
    if predictions.dtype != np.uint8 or predictions.ndim != 3 or 0 in predictions.shape:
        raise SampleError(
            f"predictions {predictions.dtype} {predictions.shape}",
            where="relative filter",
            allowed="uint8 [K, H, W], at least one image and one pixel",
        )
