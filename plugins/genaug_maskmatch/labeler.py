"""Labels from a teacher that saw the image at several scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch.distributed as dist
from torch import Tensor

from genaug.config import validate
from genaug.interfaces import PseudoLabeler
from genaug.predictions import Predictions, PseudoTargets
from genaug.sizes import scaled_size
from genaug_basics.threshold import confident_targets
from genaug_maskmatch.config import Average, MaskMatchOptions
from genaug_maskmatch.functional import Teacher, average_scales

if TYPE_CHECKING:
    from genaug.recipe import BuildContext


class MaskMatchLabeler(PseudoLabeler):
    """Averages the teacher's predictions over scales and keeps the pixels above a threshold (MaskMatch, eqs. 7, 8).

    Args:
        scales: Scales at which the teacher sees the images, each above 0 and at most 4.
        threshold: Of the averaged probability, in [0, 1].
        strict: Keep above the threshold only, not at it.
        average: ``probs`` or ``logits``.
        multiple_of: Scaled sides are rounded to multiples of it, here and in the terms; scale 1 is the image as it is.
        max_side: Longest side that any scale may have, here and in the terms; None allows all.
        align_corners: Of the resizing.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(
        self,
        *,
        scales: tuple[float, ...] = (1.0, 0.7, 1.5),
        threshold: float = 0.9,
        strict: bool = True,
        average: Average = "probs",
        multiple_of: int = 1,
        max_side: int | None = None,
        align_corners: bool = False,
    ) -> None:
        given = {
            "scales": scales, "threshold": threshold, "strict": strict, "average": average,
            "multiple_of": multiple_of, "max_side": max_side, "align_corners": align_corners,
        }  # fmt: skip
        self.options: MaskMatchOptions = validate(MaskMatchOptions, given, where="labeler maskmatch")
        self.multiple_of, self.max_side = multiple_of, max_side

    @classmethod
    def from_config(cls, options: MaskMatchOptions, context: BuildContext) -> Self:  # noqa: ARG003
        """Build from a recipe's options."""
        return cls(**options.model_dump())

    def predict(self, teacher: Teacher, images: Tensor) -> Predictions:
        """Ask the teacher about images ``[B, 3, H, W]`` at every scale; return averaged predictions of their size.

        Raises:
            SampleError: A scale is longer than `max_side`, before the teacher is asked at all; or the teacher returned
                another size than that of its images.
        """
        options, own = self.options, (int(images.shape[2]), int(images.shape[3]))
        sizes = [
            scaled_size(own, scale, options.multiple_of, max_side=options.max_side, where="labeler.max_side")
            for scale in options.scales
        ]
        return average_scales(teacher, images, sizes, average=options.average, align_corners=options.align_corners)

    def _label(
        self,
        predictions: Predictions,
        valid: Tensor,  # noqa: ARG002  (the public method takes care of it)
        ignore_index: int,
        group: dist.ProcessGroup | None,  # noqa: ARG002  (every pixel for itself)
    ) -> PseudoTargets:
        options = self.options
        return confident_targets(
            predictions, threshold=options.threshold, strict=options.strict, ignore_index=ignore_index
        )
