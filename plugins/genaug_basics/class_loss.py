"""FreeMask's filter: a synthetic pixel much harder than its class is on real images is ignored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from genaug.errors import SampleError
from genaug.interfaces import Filter, FilterContext, Predictor
from genaug.labels import LabelSpace
from genaug.types import Group, Verdict
from genaug_basics.class_losses import class_losses
from genaug_basics.inference import BatchedPredictor, stack_group
from genaug_basics.scores import pixel_verdict

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_basics.config import ClassLossOptions


class ClassLossFilter(Filter):
    """Ignores the pixels whose loss against the mask exceeds ``margin * m_c``.

    m_c is the mean cross-entropy of class c over its pixels in the real labelled images (FreeMask, NeurIPS
    2023, "filtering"; margin 1.25 in its released code). Unlike the relative filter this one compares with the
    mask, so what a weak segmenter never learnt is ignored even where the image is right.

    Scores: ``kept``, ``kept/<class name>``, and ``loss``, the mean cross-entropy over labelled pixels in nats.

    Args:
        predictor: A segmenter trained on the labelled data.
        labels: Class table.
        margin: Factor on m_c, above 0.
        unseen: What to do with pixels of classes that no real pixel has, for which m_c does not exist: "keep"
            (nothing is known against them) or "ignore".
        batch_size: Images per forward pass.
        device: Torch device of the predictor.
        min_kept: Drop a sample when a smaller share of its labelled pixels is kept; 0 drops none.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        labels: LabelSpace,
        margin: float = 1.25,
        unseen: Literal["keep", "ignore"] = "keep",
        batch_size: int = 8,
        device: str = "cpu",
        min_kept: float = 0.0,
    ) -> None:
        self.labels, self.margin, self.unseen, self.min_kept = labels, margin, unseen, min_kept
        self._segmenter = BatchedPredictor(predictor, labels=labels, batch_size=batch_size, device=device)
        self._limits: NDArray[np.float64] | None = None

    @classmethod
    def from_config(cls, options: ClassLossOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        return cls(
            context.predictor(options.predictor, where="filters.class-loss.predictor"),
            labels=context.labels,
            margin=options.margin,
            unseen=options.unseen,
            batch_size=options.batch_size,
            device=context.device,
            min_kept=options.min_kept,
        )

    def prepare(self, context: FilterContext) -> None:
        """Measure m_c on the real samples."""
        # A loss is never negative, so a limit of -1 ignores every pixel of an unseen class.
        default = np.inf if self.unseen == "keep" else -1.0
        limits = class_losses(self._segmenter, context).table(default)
        self._limits = np.where(limits >= 0, limits * self.margin, limits)

    def _judge(self, group: Group) -> Sequence[Verdict]:
        if self._limits is None:
            raise SampleError("class-loss has not seen the real samples", hint="Call prepare(context) first")
        images, before = stack_group(group)
        losses = self._segmenter.losses(images, before)
        labelled = self._segmenter.channels(before) >= 0
        above = labelled & (losses > self._limits[before])
        after = np.where(above, np.uint8(self.labels.ignore_index), before)
        return [
            pixel_verdict(b, a, self.labels, min_kept=self.min_kept, more=_mean(x, m))
            for b, a, x, m in zip(before, after, losses, labelled, strict=True)
        ]


def _mean(losses: NDArray[np.float32], labelled: NDArray[np.bool_]) -> dict[str, float]:
    return {"loss": float(losses[labelled].mean(dtype=np.float64))} if labelled.any() else {}
