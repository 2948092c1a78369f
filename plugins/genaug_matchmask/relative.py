"""The relative filter of MatchMask: the images of one mask judge one another."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from genaug.interfaces import Filter, FilterContext, Predictor
from genaug.labels import LabelSpace
from genaug.types import Group, Verdict
from genaug_basics.inference import BatchedPredictor, stack_group
from genaug_basics.scores import pixel_verdict
from genaug_matchmask.functional import majority, relative_filter

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_matchmask.relative_config import RelativeOptions


class RelativeFilter(Filter):
    """Ignores the pixels of an image that a segmenter sees differently than in most of its siblings.

    A segmenter trained on the few labelled images is often wrong, but wrong alike on images of the same mask;
    comparing its predictions with one another cancels that, which a comparison with the mask would not
    (MatchMask, section "relative filtering", eqs. 7 and 8). A region that all K images get wrong is kept.

    Scores of each sample: ``kept``, the share of its labelled pixels that stay labelled, ``kept/<class name>``
    likewise, and ``agreement``, the mean share of the K images that agree with the majority at a pixel.

    Args:
        predictor: A segmenter trained on the labelled data only.
        labels: Class table.
        batch_size: Images per forward pass.
        device: Torch device of the predictor.
        min_kept: Drop a sample when a smaller share of its labelled pixels is kept; 0 drops none (paper).
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        labels: LabelSpace,
        batch_size: int = 8,
        device: str = "cpu",
        min_kept: float = 0.0,
    ) -> None:
        self.labels = labels
        self.min_kept = min_kept
        self._segmenter = BatchedPredictor(predictor, labels=labels, batch_size=batch_size, device=device)
        self._warned = False

    @classmethod
    def from_config(cls, options: RelativeOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        return cls(
            context.predictor(options.predictor, where="filters.relative.predictor"),
            labels=context.labels,
            batch_size=options.batch_size,
            device=context.device,
            min_kept=options.min_kept,
        )

    def prepare(self, context: FilterContext) -> None:
        """Warn early when the recipe asks for too few images per mask."""
        self._warn_if_few(context.samples_per_condition)

    def _judge(self, group: Group) -> Sequence[Verdict]:
        self._warn_if_few(len(group.samples))
        images, before = stack_group(group)
        predictions = self._segmenter.ids(images)
        winner = majority(predictions)
        after = relative_filter(predictions, before, self.labels.ignore_index, winner=winner)
        agreement = float((predictions == winner).mean())
        return [
            pixel_verdict(b, a, self.labels, min_kept=self.min_kept, more={"agreement": agreement})
            for b, a in zip(before, after, strict=True)
        ]

    def _warn_if_few(self, count: int) -> None:
        if count >= 3 or self._warned:
            return
        self._warned = True
        effect = "filters nothing" if count == 1 else "gives every disagreement to the smaller class id"
        warnings.warn(
            f"relative filter: {count} image(s) of one mask; voting among so few {effect}. "
            "Use images_per_mask: 3 or more (the paper: 5).",
            stacklevel=3,
        )
