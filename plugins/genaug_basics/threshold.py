"""The labeler of most self-training: what the teacher says, where it is sure enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import torch
import torch.distributed as dist
from torch import Tensor

from genaug.config import validate
from genaug.interfaces import PseudoLabeler
from genaug.predictions import Predictions, PseudoTargets, SoftTargets
from genaug_basics.config import ThresholdOptions

if TYPE_CHECKING:
    from genaug.recipe import BuildContext


def confident_targets(
    predictions: Predictions, *, threshold: float, strict: bool = False, ignore_index: int = 255
) -> PseudoTargets:
    """Keep the pixels whose largest probability reaches a threshold.

    Args:
        predictions: ``[B, K, H, W]``; half precision is compared in float32.
        threshold: In [0, 1].
        strict: Keep above the threshold only, not at it.
        ignore_index: Label of the other pixels.

    Returns:
        Hard targets: classes int64 and weights 1 where kept, `ignore_index` and 0 elsewhere; confidence and predicted
        class of every pixel.
    """
    confidence, classes = predictions.confidence()
    kept = confidence > threshold if strict else confidence >= threshold
    return PseudoTargets(
        torch.where(kept, classes, ignore_index), kept.float(), confidence=confidence, predicted=classes
    )


class ThresholdLabeler(PseudoLabeler):
    """Keeps the pixels whose largest probability reaches a threshold (FixMatch; `>=` as in UniMatch's code).

    ``target="soft"`` trains towards the teacher's whole distribution on the same pixels; with ``threshold=0`` that is
    Mean Teacher's consistency. ``weighting="share"`` keeps every pixel instead, and weights all alike by the share of
    those that reach the threshold, over the batch of all processes (ClassMix's code, which counts after mixing).

    Args:
        threshold: Least probability, in [0, 1]; 0 keeps everything.
        strict: Keep above the threshold only.
        target: ``hard`` or ``soft``.
        weighting: ``pixel`` or ``share``.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.95,
        strict: bool = False,
        target: Literal["hard", "soft"] = "hard",
        weighting: Literal["pixel", "share"] = "pixel",
    ) -> None:
        given = {"threshold": threshold, "strict": strict, "target": target, "weighting": weighting}
        self.options: ThresholdOptions = validate(ThresholdOptions, given, where="labeler threshold")

    @classmethod
    def from_config(cls, options: ThresholdOptions, context: BuildContext) -> Self:  # noqa: ARG003
        """Build from a recipe's options."""
        return cls(**options.model_dump())

    def _label(
        self, predictions: Predictions, valid: Tensor, ignore_index: int, group: dist.ProcessGroup | None
    ) -> PseudoTargets:
        options = self.options
        targets = confident_targets(
            predictions, threshold=options.threshold, strict=options.strict, ignore_index=ignore_index
        )
        hard, weights, soft = targets.hard, targets.weights, None
        if options.weighting == "share":
            assert targets.predicted is not None  # confident_targets fills it
            hard, weights = targets.predicted, _share(weights, valid, group).expand_as(weights)
        if options.target == "soft":
            log_probs = predictions.log_probs()
            soft = SoftTargets(log_probs, log_probs.new_zeros(log_probs.shape[1]))
        return PseudoTargets(hard, weights, soft, targets.confidence, targets.predicted)


def _share(kept: Tensor, valid: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    counts = torch.stack([((kept > 0) & valid).sum(), valid.sum()])
    if group is not None:
        dist.all_reduce(counts, group=group)
    return counts[0] / counts[1].clamp_min(1)
