"""The equations of MaskMatch: masks of patches, and predictions averaged over scales. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from genaug.errors import SampleError
from genaug.predictions import Predictions, full
from genaug.sizes import Size
from genaug_maskmatch.config import Average, Grid, Sampling

#: Images ``[B, 3, h, w]`` to predictions of the same size.
Teacher = Callable[[Tensor], Predictions]

#: BEiT's blocks: at least so many patches each, and sides in proportions from 0.3 to its inverse.
BLOCK_CELLS, BLOCK_ASPECT = 16, 0.3


# ---------------------------------------------------------------------- masks


def grid_shape(size: Size, patch: int, grid: Grid = "ceil") -> Size:
    """Return rows and columns of patches in an image ``(H, W)``; at least one each."""
    if grid == "ceil":
        return -(-size[0] // patch), -(-size[1] // patch)
    return max(1, round(size[0] / patch)), max(1, round(size[1] / patch))


def draw_cells(
    generator: np.random.Generator, shape: Size, ratio: float, sampling: Sampling = "random"
) -> NDArray[np.bool_]:
    """Draw which patches of one image are hidden. Whatever the sampling, a share `ratio` of them is, on average.

    * ``random``: every patch for itself (the paper's choice).
    * ``block``: rectangles of many patches until there are enough (after BEiT).
    * ``grid``: the same patches of every 2x2 patches; at ratio 0.75 three of four (after MAE).

    Args:
        generator: Source of the draws.
        shape: ``(rows, columns)``.
        ratio: In [0, 1].
        sampling: See above.

    Returns:
        bool ``[rows, columns]``, True where hidden.
    """
    if sampling == "random":
        return generator.random(shape) < ratio
    if sampling == "block":
        return _blocks(generator, shape, _whole(generator, ratio * shape[0] * shape[1]))
    order = generator.permutation(4).reshape(2, 2)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    hidden: NDArray[np.bool_] = order[rows % 2, columns % 2] < _whole(generator, 4 * ratio)
    return hidden


def _whole(generator: np.random.Generator, value: float) -> int:
    """Round up or down by chance, so that the mean is `value`."""
    return int(value + generator.random())


def _blocks(generator: np.random.Generator, shape: Size, count: int) -> NDArray[np.bool_]:
    hidden = np.zeros(shape, np.bool_)
    while (missing := count - int(hidden.sum())) > 0:
        cells = generator.uniform(min(BLOCK_CELLS, missing), missing)
        aspect = np.exp(generator.uniform(np.log(BLOCK_ASPECT), -np.log(BLOCK_ASPECT)))
        height = min(shape[0], max(1, round(np.sqrt(cells * aspect))))
        width = min(shape[1], max(1, round(np.sqrt(cells / aspect))))
        top = generator.integers(shape[0] - height + 1)
        left = generator.integers(shape[1] - width + 1)
        block = np.zeros(shape, np.bool_)
        block[top : top + height, left : left + width] = True
        new = np.flatnonzero(block & ~hidden)[:missing]  # sides are rounded: the block may be larger than asked for
        hidden.flat[new] = True
    return hidden


def expand_cells(cells: Tensor, size: Size, patch: int, grid: Grid = "ceil") -> Tensor:
    """Give every pixel the value of its patch.

    Args:
        cells: ``[B, rows, columns]`` with `grid_shape` of the size.
        size: ``(H, W)``.
        patch: Side of a patch in pixels.
        grid: ``ceil`` cuts the last patches off where the patch does not divide a side; ``round`` stretches all, by
            nearest-neighbour resizing.

    Returns:
        ``[B, H, W]`` of the same type.
    """
    rows, columns = (
        torch.arange(side, device=cells.device) // patch
        if grid == "ceil"
        else torch.arange(side, device=cells.device) * count // side
        for side, count in zip(size, cells.shape[1:], strict=True)
    )
    return cells.index_select(1, rows).index_select(2, columns)


def hide(images: Tensor, hidden: Tensor, fill: float = 0.0) -> Tensor:
    """Return images ``[B, C, H, W]`` with `fill` where bool ``[B, H, W]`` is True; all others bit by bit (eq. 5)."""
    return images.masked_fill(hidden.unsqueeze(1), fill)


# ---------------------------------------------------------------------- scales


def average_scales(
    teacher: Teacher,
    images: Tensor,
    sizes: Sequence[Size],
    *,
    average: Average = "probs",
    align_corners: bool = False,
) -> Predictions:
    """Ask a teacher about images at several sizes and average what it says (eq. 7).

    Images and predictions are resized bilinearly; the sum is kept in float32, one scale in memory at a time.

    Args:
        teacher: Returns predictions of the size of the images it is given.
        images: float ``[B, 3, H, W]``.
        sizes: ``(height, width)`` of each pass.
        average: ``probs`` averages probabilities, whose rows still sum to 1; ``logits`` averages logits (or
            log-probabilities, which gives the same distribution).
        align_corners: Of the resizing.

    Returns:
        Predictions ``[B, K, H, W]`` of kind ``probs`` or ``logits``.

    Raises:
        SampleError: The teacher returned another size.
    """
    own = (int(images.shape[2]), int(images.shape[3]))
    total: Tensor | None = None
    for size in sizes:
        seen = images
        if size != own:
            seen = F.interpolate(images, size=size, mode="bilinear", align_corners=align_corners)
        answer = teacher(seen)
        if tuple(answer.values.shape[2:]) != size:
            found = f"predictions of size {tuple(answer.values.shape[2:])} for images of size {size}"
            raise SampleError(found, where="maskmatch", allowed="predictions of the images' own size")
        values = _averageable(answer, average).resized(own, align_corners=align_corners).values
        total = values / len(sizes) if total is None else total.add_(values, alpha=1 / len(sizes))
    if total is None:
        raise SampleError("no scale", where="maskmatch", allowed="one or more")
    return Predictions(total, average)


def _averageable(predictions: Predictions, average: Average) -> Predictions:
    if average == "probs":
        return Predictions(predictions.probs(), "probs")
    if predictions.kind == "logits":
        return Predictions(full(predictions.values), "logits")
    log_probs = predictions.log_probs()  # -inf would make NaN of its neighbours when resized
    return Predictions(log_probs.clamp_min(math.log(torch.finfo(log_probs.dtype).tiny)), "logits")
