"""Hides patches of the images that the student sees, so that it learns to fill them in from what is around."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from genaug.batch import Batch
from genaug.config import validate
from genaug.errors import warn_caller
from genaug.interfaces import Mixer
from genaug.rng import Rng
from genaug.sizes import Size
from genaug_maskmatch.config import Grid, PatchMaskOptions, Sampling
from genaug_maskmatch.functional import draw_cells, expand_cells, grid_shape, hide

if TYPE_CHECKING:
    from genaug.recipe import BuildContext

#: With fewer patches, an image is often hidden entirely: at ratio 0.7, one of four images of 2x2 patches.
FEWEST_CELLS = 16


class PatchMask(Mixer):
    """Hides patches of each image (MaskMatch, eqs. 5 and 6); needs no partner, and changes nothing but the images.

    The loss then counts all pixels, hidden and visible (Table 8): labels and weights stay whole.

    Args:
        patch: Side of a patch in pixels.
        ratio: Share of hidden patches, in [0, 1].
        sampling: ``random``, ``block`` or ``grid``, see `genaug_maskmatch.functional.draw_cells`.
        grid: ``ceil`` or ``round``, see `genaug_maskmatch.functional.expand_cells`.
        fill: Value of hidden pixels.
        allow_all: Accept ratio 1.

    Raises:
        ConfigError: A value out of range, or ratio 1 without `allow_all`.
    """

    partner = "none"

    def __init__(
        self,
        *,
        patch: int = 32,
        ratio: float = 0.7,
        sampling: Sampling = "random",
        grid: Grid = "ceil",
        fill: float = 0.0,
        allow_all: bool = False,
    ) -> None:
        given = {
            "patch": patch, "ratio": ratio, "sampling": sampling, "grid": grid, "fill": fill, "allow_all": allow_all,
        }  # fmt: skip
        self.options: PatchMaskOptions = validate(PatchMaskOptions, given, where="mixer patch-mask")
        self._warned = False

    @classmethod
    def from_config(cls, options: PatchMaskOptions, context: BuildContext) -> Self:  # noqa: ARG003
        """Build from a recipe's options."""
        return cls(**options.model_dump())

    def _mix(self, batch: Batch, partner: Batch, rng: Rng) -> Batch:  # noqa: ARG002  (there is none)
        options = self.options
        shape = grid_shape(batch.size, options.patch, options.grid)
        self._warn_of_few(batch.size, shape)
        cells = np.zeros((len(batch), *shape), np.bool_)
        for i in range(len(batch)):
            cells[i] = draw_cells(rng.child(batch.first + i).numpy(), shape, options.ratio, options.sampling)
        on_device = torch.from_numpy(cells).to(batch.images.device)
        hidden = expand_cells(on_device, batch.size, options.patch, options.grid)
        return replace(batch, images=hide(batch.images, hidden, options.fill))

    def _warn_of_few(self, size: Size, shape: Size) -> None:
        patch, cells = self.options.patch, shape[0] * shape[1]
        if self._warned or (min(size) >= patch and cells >= FEWEST_CELLS):
            return
        self._warned = True
        what = "one patch spans a whole side" if min(size) < patch else f"only {cells} patches"
        warn_caller(
            f"patch-mask: {what} in images of {size[0]}x{size[1]} pixels, so some images are hidden entirely "
            f"and others not at all. Set 'patch' below {patch}."
        )
