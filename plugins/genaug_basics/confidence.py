"""Keeps the pixels that a segmenter is sure of; the comparison that MatchMask's relative filter is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from genaug.interfaces import Filter, Predictor
from genaug.labels import LabelSpace
from genaug.types import Group, Verdict
from genaug_basics.inference import BatchedPredictor, stack_group
from genaug_basics.scores import pixel_verdict

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_basics.config import ConfidenceOptions


class ConfidenceFilter(Filter):
    """Ignores the pixels whose softmax probability is below a threshold.

    MatchMask reports a "confidence" filter beside its own without giving the rule. Our reading is the usual
    one of pseudo-labelling: the probability of the most likely class (``of="prediction"``), at FixMatch's
    threshold 0.95. It does not ask whether that class is the mask's; ``of="mask"`` does, by taking the
    probability of the class that the mask asks for, and is much stricter on small and rare classes.

    Scores: ``kept``, ``kept/<class name>``, and ``confidence``, the mean probability over labelled pixels.

    Args:
        predictor: A segmenter trained on the labelled data only.
        labels: Class table.
        threshold: Least probability of a kept pixel, in ``(0, 1]``.
        of: Whose probability, see above.
        batch_size: Images per forward pass.
        device: Torch device of the predictor.
        min_kept: Drop a sample when a smaller share of its labelled pixels is kept; 0 drops none.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        labels: LabelSpace,
        threshold: float = 0.95,
        of: Literal["prediction", "mask"] = "prediction",
        batch_size: int = 8,
        device: str = "cpu",
        min_kept: float = 0.0,
    ) -> None:
        self.labels, self.threshold, self.of, self.min_kept = labels, threshold, of, min_kept
        self._segmenter = BatchedPredictor(predictor, labels=labels, batch_size=batch_size, device=device)

    @classmethod
    def from_config(cls, options: ConfidenceOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        return cls(
            context.predictor(options.predictor, where="filters.confidence.predictor"),
            labels=context.labels,
            threshold=options.threshold,
            of=options.of,
            batch_size=options.batch_size,
            device=context.device,
            min_kept=options.min_kept,
        )

    def _judge(self, group: Group) -> Sequence[Verdict]:
        images, before = stack_group(group)
        if self.of == "mask":
            confidence = np.exp(-self._segmenter.losses(images, before))
        else:
            confidence = self._segmenter.confidence(images)
        after = np.where(confidence >= self.threshold, before, np.uint8(self.labels.ignore_index))
        labelled = self._segmenter.channels(before) >= 0
        return [
            pixel_verdict(b, a, self.labels, min_kept=self.min_kept, more=_mean(c, m))
            for b, a, c, m in zip(before, after, confidence, labelled, strict=True)
        ]


def _mean(confidence: NDArray[np.float32], labelled: NDArray[np.bool_]) -> dict[str, float]:
    return {"confidence": float(confidence[labelled].mean(dtype=np.float64))} if labelled.any() else {}
