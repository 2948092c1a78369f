"""The drawing surface of the procedural scenes: coordinates, value noise, painting with exact masks.

Scenes live in resolution-free coordinates (y grows downwards, a full scene spans about 1.6 x 1); a canvas looks
at them through a square window. Zooming is therefore a smaller window and never an image resize, and the
mask is exact at every zoom because a pixel takes the class of the last region painted over its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]
Region: TypeAlias = npt.NDArray[np.bool_]
Colour: TypeAlias = Array | tuple[float, float, float]


def rgb(colour: Colour) -> Array:
    """A colour, or a field of colours, as float32."""
    return np.asarray(colour, dtype=np.float32)


class Noise:
    """Smooth value noise on an endless plane: one random lattice, repeated, read bilinearly."""

    SIDE = 64

    def __init__(self, rng: np.random.Generator) -> None:
        # float32 throughout: half the memory traffic, and noise needs no more digits.
        self._table = rng.random((self.SIDE, self.SIDE), dtype=np.float32)

    def __call__(self, u: Array, v: Array) -> Array:
        """Read the noise at lattice coordinates.

        Args:
            u: [...] float, column coordinate; one unit is one lattice cell.
            v: [...] float, row coordinate.

        Returns:
            [...] float32 in [0, 1], with a smooth step inside each cell.
        """
        column, row = np.floor(u), np.floor(v)
        fu, fv = u - column, v - row
        fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
        i0, j0 = row.astype(np.int64) % self.SIDE, column.astype(np.int64) % self.SIDE
        i1, j1 = (i0 + 1) % self.SIDE, (j0 + 1) % self.SIDE
        table = self._table
        top = table[i0, j0] * (1 - fu) + table[i0, j1] * fu
        bottom = table[i1, j0] * (1 - fu) + table[i1, j1] * fu
        return np.asarray(top * (1 - fv) + bottom * fv, dtype=np.float32)

    def cells(self, u: Array, v: Array) -> Array:
        """One constant random value per lattice cell (lit windows, cobbles): [...] float32 in [0, 1]."""
        i, j = np.floor(v).astype(np.int64) % self.SIDE, np.floor(u).astype(np.int64) % self.SIDE
        return np.asarray(self._table[i, j], dtype=np.float32)


@dataclass
class Canvas:
    """A window onto the scene; `clip` hands out smaller ones that share the same pixels.

    Attributes:
        x: [h, w] float32, scene x of every pixel centre.
        y: [h, w] float32, scene y of every pixel centre.
        image: [h, w, 3] float32, linear colours, about [0, 1] before lighting.
        mask: [h, w] uint8, class ids.
        depth: [h, w] float32, distance in [0, 1] for fog; 1 is infinitely far.
        glow: [h, w] float32, how much of the colour is emitted light, kept by night.
        pixel: size of one pixel in scene units.
        noise: the scene's noise field.
    """

    x: Array
    y: Array
    image: Array
    mask: npt.NDArray[np.uint8]
    depth: Array
    glow: Array
    pixel: float
    noise: Noise

    @classmethod
    def look(cls, left: float, top: float, span: float, size: int, noise: Noise) -> Canvas:
        """A canvas of `size` x `size` pixels that sees [left, left + span] x [top, top + span]."""
        steps = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(span / size)
        x, y = np.meshgrid(steps + np.float32(left), steps + np.float32(top))
        return cls(
            x=x,
            y=y,
            image=np.zeros((size, size, 3), np.float32),
            mask=np.zeros((size, size), np.uint8),
            depth=np.ones((size, size), np.float32),
            glow=np.zeros((size, size), np.float32),
            pixel=span / size,
            noise=noise,
        )

    def clip(self, left: float, top: float, right: float, bottom: float) -> Canvas | None:
        """The part of the canvas inside a box of scene coordinates; None where the two do not meet.

        Objects are drawn on such parts: most of them are small, and this makes their cost small too.
        """
        columns = np.flatnonzero((self.x[0] >= left) & (self.x[0] <= right))
        rows = np.flatnonzero((self.y[:, 0] >= top) & (self.y[:, 0] <= bottom))
        if not len(columns) or not len(rows):
            return None
        cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        return Canvas(
            self.x[cut], self.y[cut], self.image[cut], self.mask[cut], self.depth[cut], self.glow[cut],
            self.pixel, self.noise,
        )  # fmt: skip

    def texture(self, period: float, *, stretch: float = 1.0, offset: float = 0.0) -> Array:
        """Noise with about `period` scene units between bumps; `stretch` > 1 lengthens it sideways.

        Never finer than two pixels: finer noise would alias into salt and pepper that no camera shows.
        """
        period = max(period, 2.0 * self.pixel)
        return self.noise(self.x / (period * stretch) + offset, self.y / period + 1.7 * offset)

    def paint(self, where: Region, colour: Colour, label: int, depth: Array | float, glow: float = 0.0) -> None:
        """Cover a region: colour, class and depth at once, so image and mask cannot disagree.

        Args:
            where: [h, w] bool.
            colour: [h, w, 3] float32 or one RGB triple, in [0, 1].
            label: class id.
            depth: [h, w] float32 or one value in [0, 1].
            glow: emitted share in [0, 1].
        """
        self.tint(where, colour, glow)
        self.mask[where] = label
        self.depth[where] = depth[where] if isinstance(depth, np.ndarray) else depth

    def tint(self, where: Region, colour: Colour, glow: float | None = None) -> None:
        """Recolour a region without touching its class (windows, lane marks, patterns)."""
        self.image[where] = colour[where] if isinstance(colour, np.ndarray) else rgb(colour)
        if glow is not None:
            self.glow[where] = glow

    def darken(self, where: Region, factor: float) -> None:
        """Multiply the colours of a region, for shadows."""
        self.image[where] *= np.float32(factor)


def shade(colour: tuple[float, float, float], brightness: Array) -> Array:
    """A colour times a brightness field.

    Args:
        colour: RGB in [0, 1].
        brightness: [h, w] float32, 1 is unchanged.

    Returns:
        [h, w, 3] float32.
    """
    return np.asarray(rgb(colour) * brightness[..., None], dtype=np.float32)


def blend(a: Colour, b: Colour, share: Array) -> Array:
    """Mix two colours: [h, w, 3] float32, `b` where `share` is 1."""
    weight = share[..., None]
    return np.asarray(rgb(a) * (1 - weight) + rgb(b) * weight, dtype=np.float32)


def ellipse(canvas: Canvas, x: float, y: float, rx: float, ry: float) -> Array:
    """Squared elliptic radius of every pixel: [h, w] float32, below 1 inside."""
    return np.asarray(((canvas.x - x) / rx) ** 2 + ((canvas.y - y) / ry) ** 2, dtype=np.float32)


def box(canvas: Canvas, left: float, top: float, right: float, bottom: float) -> Region:
    """Pixels whose centre lies in a box: [h, w] bool."""
    return np.asarray((canvas.x >= left) & (canvas.x < right) & (canvas.y >= top) & (canvas.y < bottom), dtype=np.bool_)
