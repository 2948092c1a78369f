"""Scribbles made from a mask: the middle lines of shrunken regions, cut and drawn within a budget of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse  # type: ignore[import-untyped]
from skimage.measure import label
from skimage.morphology import skeletonize

from genaug.rng import Rng
from genaug.types import Mask
from genaug_scribbles.strokes import Points, brush, line

_CELLS = 8  # thicker regions are thinned on a coarser grid: this many of its cells fit into their inner radius
_AROUND = np.array([(-1, -1, -1, 0, 0, 1, 1, 1), (-1, 0, 1, -1, 1, -1, 0, 1)])  # y and x of eight neighbours


@dataclass(frozen=True, slots=True)
class Stroke:
    """A middle line that may be drawn, whole or in part.

    Args:
        region: Number of its region.
        pixels: int64 ``[M, 2]``, x and y, in order.
        first: It is the only stroke that its class cannot do without.
        at: Where a part of it lies: 0 at the start, 1 at the end.
    """

    region: int
    pixels: Points
    first: bool
    at: float


def make_scribbles(
    mask: Mask,
    *,
    ignore_index: int,
    rng: Rng,
    budget: float = 0.03,
    width: int = 3,
    strokes: int = 6,
    min_region: int = 32,
    shrink: float = 0.3,
    cut: float = 0.2,
) -> Mask:
    """Return scribbles that a person might have drawn over the regions of a mask.

    For the largest connected regions of every class: the longest path of the skeleton of what remains of the region
    when its outline is shrunk, its ends cut at random. All strokes are shortened by one factor until they fit the
    budget; where that is not enough, the smaller regions of the classes that have several go without.

    A labelled pixel always has the mask's class, and every class of the mask has a labelled pixel. At most
    ``budget * H * W`` pixels are labelled, or one of every class where that is more.

    Args:
        mask: uint8 ``[H, W]``.
        ignore_index: Id of no class; such pixels get no stroke, and every pixel without one gets this id.
        rng: The only randomness.
        budget: Largest share of all pixels that is labelled, in ``(0, 1]``.
        width: Width of a stroke in pixels.
        strokes: Most strokes of a class.
        min_region: Regions of fewer pixels get none, but for the largest of a class.
        shrink: Share of a region's inner radius that is shrunk away, in ``[0, 1)``.
        cut: Largest share of a line that is cut off at each end, in ``[0, 0.5)``.

    Returns:
        uint8 ``[H, W]``.
    """
    result = np.full_like(mask, ignore_index)
    regions: NDArray[np.int32] = label(mask, background=ignore_index, connectivity=2).astype(np.int32)
    chosen = _choose(mask, regions, strokes, min_region)
    if not chosen:
        return result
    depth = _depth(regions)
    boxes = ndimage.find_objects(regions)
    drawn = []
    for (region, first), (left, right, at) in zip(chosen, rng.numpy().random((len(chosen), 3)), strict=True):
        path = _middle_line(regions, depth, region, boxes[region - 1], shrink)
        start, end = int(left * cut * len(path)), len(path) - int(right * cut * len(path))
        drawn.append(Stroke(region, path[start:end], first, float(at)))
    ink = _fit(drawn, regions, int(budget * mask.size), width)
    result.ravel()[ink] = mask.ravel()[ink]
    return result


def _choose(mask: Mask, regions: NDArray[np.int32], strokes: int, min_region: int) -> list[tuple[int, bool]]:
    """Return the regions to draw in, with whether one is the largest of its class: those first, then by size."""
    sizes = np.bincount(regions.ravel())
    class_of = np.zeros(len(sizes), np.int64)
    class_of[regions] = mask
    numbers = np.arange(1, len(sizes))
    numbers = numbers[np.lexsort((-sizes[numbers], class_of[numbers]))]
    starts = np.flatnonzero(np.diff(class_of[numbers], prepend=-1))
    rank = np.arange(len(numbers)) - np.repeat(starts, np.diff(starts, append=len(numbers)))
    keep = (rank == 0) | ((rank < strokes) & (sizes[numbers] >= min_region))
    numbers, rank = numbers[keep], rank[keep]
    order = np.lexsort((numbers, -sizes[numbers], rank > 0))
    return [(int(numbers[i]), bool(rank[i] == 0)) for i in order]


def _depth(regions: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return how far each pixel is from the outline of its region, 1 on it, in steps to one of eight neighbours.

    The image's edge is outline too.
    """
    padded = np.pad(regions, 1, constant_values=-1)
    middle = padded[1:-1, 1:-1]
    outline = np.zeros(regions.shape, bool)
    for other in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        outline |= other != middle
    depth: NDArray[np.int32] = ndimage.distance_transform_cdt(~outline, "chessboard") + 1
    return depth


def _middle_line(
    regions: NDArray[np.int32], depth: NDArray[np.int32], region: int, box: tuple[slice, slice], shrink: float
) -> Points:
    """Return the pixels of a region's longest middle line, x and y, in order; all lie in the region."""
    inside = np.where(regions[box] == region, depth[box], 0)
    radius = int(inside.max())
    cell = max(1, radius // _CELLS)
    height, width = (-(-side // cell) for side in inside.shape)
    inside = np.pad(inside, ((0, height * cell - inside.shape[0]), (0, width * cell - inside.shape[1])))
    cells = inside.reshape(height, cell, width, cell).swapaxes(1, 2).reshape(height, width, cell * cell)
    deepest = cells.argmax(axis=2)
    coarse = np.take_along_axis(cells, deepest[..., None], axis=2)[..., 0]
    core = np.pad(coarse > shrink * radius, 1)
    path = _longest_path(skeletonize(core), np.pad(coarse, 1))
    path = _extended(path, core) - 1
    inner = deepest[path[:, 1], path[:, 0]]  # of every cell the pixel that is furthest from the outline
    points = path * cell + np.stack([inner % cell + box[1].start, inner // cell + box[0].start], axis=1)
    pixels = line(points)
    kept: Points = pixels[regions[pixels[:, 1], pixels[:, 0]] == region]
    return kept  # a line between two cells may leave a bent region


def _longest_path(skeleton: NDArray[np.bool_], depth: NDArray[np.int32]) -> Points:
    """Return a longest of the shortest paths in the part of a skeleton that is deepest, x and y, in order.

    Found by two sweeps, which is exact for trees; a skeleton with holes may have a slightly longer one.

    Args:
        skeleton: bool ``[H, W]``, False along the edge.
        depth: ``[H, W]``.
    """
    y, x = np.nonzero(skeleton)
    index = np.full(skeleton.shape, -1, np.int32)
    index[y, x] = np.arange(len(y), dtype=np.int32)
    neighbours = index[y[:, None] + _AROUND[0], x[:, None] + _AROUND[1]]
    there = neighbours >= 0
    starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    graph = sparse.csr_array((np.ones(starts[-1]), neighbours[there], starts), shape=(len(y), len(y)))
    end = sparse.csgraph.breadth_first_order(graph, int(depth[y, x].argmax()))[0][-1]
    order, before = sparse.csgraph.breadth_first_order(graph, int(end))
    before[before < 0] = end
    path, jump = order[-1:], before
    while path[-1] != end:  # what is there and its ancestors, so that the length doubles each time
        path, jump = np.concatenate([path, jump[path]]), jump[jump]
    path = path[: int(np.argmax(path == end)) + 1]
    return np.stack([x[path], y[path]], axis=1)


def _extended(path: Points, core: NDArray[np.bool_]) -> Points:
    """Return a path that goes straight on at both ends, for as long as it stays in the core.

    Thinning wears the ends of thick regions down: what remains of a square is hardly longer than a dot.
    """
    near = min(len(path), _CELLS) - 1
    ahead, back = path[-1] - path[-1 - near], path[0] - path[near]
    if not near:  # a dot goes on along the longer side of its region
        ahead = np.array([0, 1] if core.shape[0] > core.shape[1] else [1, 0])
        back = -ahead
    return np.concatenate([_onward(path[0], back, core), path, _onward(path[-1], ahead, core)])


def _onward(start: Points, direction: Points, core: NDArray[np.bool_]) -> Points:
    """Return the last place before `core` ends on the way from `start`, ``[1, 2]``; none where it ends at once."""
    longest = int(np.abs(direction).max())
    if not longest:
        return start[None][:0]
    steps = np.arange(1, max(core.shape))[:, None]
    points = start + np.rint(steps * (direction / longest)).astype(np.int64)
    points = points[((points >= 0) & (points < core.shape[::-1])).all(axis=1)]
    reached = int(np.argmin(np.append(core[points[:, 1], points[:, 0]], False)))
    last: Points = points[:reached][-1:]
    return last


# ---------------------------------------------------------------------- budget


def _fit(strokes: list[Stroke], regions: NDArray[np.int32], budget: int, width: int) -> NDArray[np.int64]:
    """Return the flat indices of the pixels to label: the strokes, as many and as long as the budget allows."""
    needed = sum(stroke.first for stroke in strokes)
    for wide, shortest in ((width, 3 * width), (width, 1), (1, 1)):
        canvas = _Canvas(strokes, regions, wide, shortest)
        if canvas.ink(0.0, needed) <= budget:
            break
    else:  # one pixel of every class is above the budget already
        return canvas.indices(0.0, needed)
    low, high = needed, len(strokes)  # as many strokes as fit when they are short ...
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if canvas.ink(0.0, middle) <= budget else (low, middle - 1)
    if canvas.ink(1.0, low) <= budget:
        return canvas.indices(1.0, low)
    short, long = 0.0, 1.0  # ... and then as long as they can be
    for _ in range(10):
        share = (short + long) / 2
        short, long = (share, long) if canvas.ink(share, low) <= budget else (short, share)
    return canvas.indices(short, low)


class _Canvas:
    """Strokes laid end to end, so that parts of all of them are painted at once."""

    def __init__(self, strokes: list[Stroke], regions: NDArray[np.int32], width: int, shortest: int) -> None:
        lengths = np.array([len(stroke.pixels) for stroke in strokes])
        self._pixels = np.concatenate([stroke.pixels for stroke in strokes])
        self._of = np.repeat(np.arange(len(strokes)), lengths)
        self._place = np.arange(len(self._of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        self._lengths, self._shortest = lengths, np.minimum(lengths, shortest)
        self._at = np.array([stroke.at for stroke in strokes])
        self._region = np.array([stroke.region for stroke in strokes])
        self._regions, self._offsets = regions, brush(width)

    def indices(self, share: float, count: int) -> NDArray[np.int64]:
        """Return the flat indices under `share` of the length of each of the first `count` strokes."""
        length = np.maximum(self._shortest, np.round(share * self._lengths).astype(np.int64))
        start = np.floor(self._at * (self._lengths - length + 1)).astype(np.int64)
        of = self._of
        kept = (of < count) & (self._place >= start[of]) & (self._place < (start + length)[of])
        height, width = self._regions.shape
        pixels, region = self._pixels[kept], self._region[of[kept]]
        spots = pixels[:, None] + self._offsets
        x, y = spots[..., 0], spots[..., 1]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        flat = np.where(inside, y * width + x, 0)
        flat = flat[inside & (self._regions.ravel()[flat] == region[:, None])]
        painted = np.zeros(self._regions.size, bool)
        painted[flat] = True
        found: NDArray[np.int64] = np.flatnonzero(painted)
        return found

    def ink(self, share: float, count: int) -> int:
        """Return how many pixels that labels."""
        return len(self.indices(share, count))
