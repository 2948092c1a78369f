"""CutMix for segmentation: one rectangle of another image, with its labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from genaug.batch import Batch
from genaug.config import validate
from genaug.errors import SampleError
from genaug.interfaces import Mixer
from genaug.rng import Rng
from genaug_basics.config import CutMixOptions
from genaug_basics.pairing import paste

if TYPE_CHECKING:
    from genaug.recipe import BuildContext

Box = tuple[int, int, int, int]


def draw_box(
    generator: np.random.Generator, size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """Draw a rectangle as UniMatch's code does, for images of any shape.

    The area is uniform in its range; aspect (height over width, uniform) and corner (uniform over the image) are drawn
    together until the rectangle lies inside. Sides are rounded down, to one pixel at least.

    UniMatch's images are square, where each area fits with some aspect. In a narrow image the largest areas of the
    range may not, and are left out.

    Args:
        generator: Source of the draws.
        size: ``(H, W)``.
        area: Range of the rectangle's share of the image.
        aspect: Range of height over width.

    Returns:
        ``(top, left, height, width)`` in pixels.

    Raises:
        SampleError: The image is so narrow that not even the smallest area fits.
    """
    H, W = size
    largest = min(area[1] * H * W, H * H / aspect[0], W * W * aspect[1])
    if largest < area[0] * H * W:
        raise SampleError(
            f"no rectangle of {area[0]:g} of the image and aspect in {list(aspect)} fits into {H}x{W}",
            where="cutmix",
            hint="Allow smaller areas or longer rectangles (options area, aspect)",
        )
    pixels = generator.uniform(area[0] * H * W, largest)
    # Other aspects never fit: leaving them out saves tries.
    low = max(aspect[0], pixels / W**2)
    high = max(low, min(aspect[1], H**2 / pixels))
    # The most places that a rectangle of this area can have. An aspect is accepted by the number of its places, and the
    # corner drawn among these: the same law as drawing corners until one fits, with few misses.
    most = _places(size, _sides(pixels, min(max((H + 2) / (W + 2), low), high)), slack=1)
    while True:
        sides = _sides(pixels, generator.uniform(low, high))
        if generator.uniform(0, most) < _places(size, sides):
            height, width = sides
            top, left = generator.integers(H - height + 1), generator.integers(W - width + 1)
            return int(top), int(left), height, width


def _sides(pixels: float, aspect: float) -> tuple[int, int]:
    return max(1, int(math.sqrt(pixels * aspect))), max(1, int(math.sqrt(pixels / aspect)))


def _places(size: tuple[int, int], sides: tuple[int, int], slack: int = 0) -> int:
    """Return at how many places a rectangle fits; `slack` makes up for sides that others round down further."""
    rows, columns = (max(0, whole - side + 1 + slack) for whole, side in zip(size, sides, strict=True))
    return rows * columns


class CutMix(Mixer):
    """Pastes one rectangle of the partner image, at the same place, into about half of the samples.

    Without a partner batch, sample i takes from sample B - 1 - i (UniMatch-V2's code). Images, targets, weights, valid
    pixels and predictions come from the same place; a sample that gets no rectangle stays as it is.

    Args:
        probability: Of a rectangle, in [0, 1].
        area: Range of the rectangle's share of the image.
        aspect: Range of its height over its width.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(
        self,
        *,
        probability: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        aspect: tuple[float, float] = (0.3, 1 / 0.3),
    ) -> None:
        given = {"probability": probability, "area": area, "aspect": aspect}
        self.options: CutMixOptions = validate(CutMixOptions, given, where="mixer cutmix")

    @classmethod
    def from_config(cls, options: CutMixOptions, context: BuildContext) -> Self:  # noqa: ARG003
        """Build from a recipe's options."""
        return cls(**options.model_dump())

    def _mix(self, batch: Batch, partner: Batch, rng: Rng) -> Batch:
        boxes = [self._box(rng.child(batch.first + i), batch.size) for i in range(len(batch))]
        return paste(_inside(boxes, batch.size, batch.images.device), batch, partner)

    def _box(self, rng: Rng, size: tuple[int, int]) -> Box:
        generator = rng.numpy()
        if generator.random() >= self.options.probability:
            return 0, 0, 0, 0
        return draw_box(generator, size, self.options.area, self.options.aspect)


def _inside(boxes: list[Box], size: tuple[int, int], device: torch.device) -> Tensor:
    """Return bool ``[B, H, W]``, True inside each sample's rectangle."""
    top, left, height, width = torch.tensor(boxes, dtype=torch.int64).reshape(-1, 4).to(device).view(-1, 4, 1).unbind(1)
    y, x = (torch.arange(side, device=device).unsqueeze(0) for side in size)
    rows, columns = (y >= top) & (y < top + height), (x >= left) & (x < left + width)
    return rows.unsqueeze(2) & columns.unsqueeze(1)
