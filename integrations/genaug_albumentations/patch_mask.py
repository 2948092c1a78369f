"""Hidden patches, which the student has to fill in from what is around (MaskMatch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from genaug.config import validate
from genaug.errors import ConfigError, SampleError
from genaug_albumentations.host import A, BaseTransformInitSchema, Hooks, Targets
from genaug_maskmatch.config import Grid, PatchMaskOptions, Sampling
from genaug_maskmatch.functional import draw_cells, expand_cells, grid_shape

_WHERE = "PatchMask"


class PatchMask(Hooks, A.ImageOnlyTransform):  # type: ignore[misc]
    """Hides patches of the image; the mask stays whole, and the loss counts all of its pixels (MaskMatch, Table 8).

    Put it last. After ``A.Normalize``, 0 is the mean colour that the paper hides with. Additional targets of the kind
    ``image`` are hidden at the same places.

    Args:
        patch: Side of a patch in pixels; 32 (section 4.1).
        ratio: Share of hidden patches on average, below 1; 0.7 (section 4.1).
        sampling: ``"random"``, ``"block"`` or ``"grid"``; see the method's page.
        grid: ``"ceil"`` or ``"round"``: what happens where the patch does not divide a side; see there.
        fill: Value of hidden pixels, or one value a channel, in the units of the image.
        p: Probability.

    Targets:
        image (``[H, W]`` or ``[H, W, C]`` of any type); masks, boxes and key points stay what they are.

    Raises:
        ConfigError: An option out of range.
        SampleError: In a call: the image's type has no such `fill`, or another number of channels.
    """

    __module__ = "genaug_albumentations"  # saved pipelines name the class by it
    _targets = (Targets.IMAGE,)

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]  # noqa: D106
        patch: int
        ratio: float
        sampling: Sampling
        grid: Grid
        fill: float | Sequence[float]

    def __init__(
        self,
        patch: int = 32,
        ratio: float = 0.7,
        sampling: Sampling = "random",
        grid: Grid = "ceil",
        fill: float | Sequence[float] = 0.0,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.patch, self.ratio, self.sampling, self.grid = patch, ratio, sampling, grid
        self.fill = list(fill) if isinstance(fill, Sequence) else fill
        if ratio == 1:
            raise ConfigError("ratio 1 hides every image entirely", where=_WHERE, allowed="below 1")
        given = {"patch": patch, "ratio": ratio, "sampling": sampling, "grid": grid}
        self._options: PatchMaskOptions = validate(PatchMaskOptions, given, where=_WHERE)

    def drawn(self, data: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        """Draw the hidden pixels, bool ``[H, W]``."""
        image = data["image"] if data.get("image") is not None else data["images"][0]
        size, options = (int(image.shape[0]), int(image.shape[1])), self._options
        shape = grid_shape(size, options.patch, options.grid)
        cells = torch.from_numpy(draw_cells(generator, shape, options.ratio, options.sampling))
        return {"hidden": expand_cells(cells[None], size, options.patch, options.grid)[0].numpy()}

    def apply(self, img: np.ndarray, hidden: np.ndarray | None = None, **params: Any) -> np.ndarray:  # noqa: ARG002
        """Return the image with hidden pixels."""
        if hidden is not None and hidden.shape != img.shape[:2]:
            found, allowed = f"replayed on {img.shape[:2]} (height, width)", f"{hidden.shape}, which was drawn"
            raise SampleError(
                found, where=_WHERE, allowed=allowed, hint="Crop or resize both images to one size before"
            )
        fill = np.asarray(self.fill)
        as_stored = fill.astype(img.dtype)
        channels = img.shape[2] if img.ndim == 3 else 1
        if img.dtype.kind in "ui" and not np.array_equal(as_stored, fill):
            raise SampleError(f"fill {self.fill}", where=_WHERE, allowed=f"values that {img.dtype} images can have")
        if fill.ndim and len(fill) != channels:
            raise SampleError(f"{len(fill)} values of fill for {channels} channels", where=_WHERE)
        result = img.copy()
        result[hidden] = as_stored
        return result
