"""FreeMask's resampling: hard masks get more of their images into training than easy ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from genaug.errors import SampleError
from genaug.interfaces import Filter, FilterContext, Predictor
from genaug.labels import LabelSpace
from genaug.types import Group, Verdict
from genaug_basics.class_losses import class_losses
from genaug_basics.inference import BatchedPredictor

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_basics.config import ClassHardnessOptions


def images_to_keep(rank: int, count: int, samples_per_condition: int) -> int:
    """Return ``min(1 + round((rank + 1) / count * K), K)``: how many of its K images a mask keeps (FreeMask).

    Args:
        rank: 0 for the easiest mask, ``count - 1`` for the hardest.
        count: Number of masks.
        samples_per_condition: K.
    """
    K = samples_per_condition
    return min(1 + round((rank + 1) / count * K), K)


class ClassHardnessFilter(Filter):
    """Keeps few images of easy masks and all images of hard ones.

    The hardness of a mask is the mean over its labelled pixels of m_c, the segmenter's mean real loss of the
    pixel's class. Masks are ranked by it, equal ones by id, and keep the first `images_to_keep` of their images
    (FreeMask, NeurIPS 2023, "resampling"; K = 20 there). Looks at masks only, never at images.

    Scores: ``hardness`` in nats, and ``rank``, from 0 (easiest).

    Args:
        predictor: A segmenter trained on the labelled data.
        labels: Class table.
        batch_size: Images per forward pass.
        device: Torch device of the predictor.
    """

    def __init__(self, predictor: Predictor, *, labels: LabelSpace, batch_size: int = 8, device: str = "cpu") -> None:
        self._segmenter = BatchedPredictor(predictor, labels=labels, batch_size=batch_size, device=device)
        self._ranks: dict[str, tuple[int, float]] = {}
        self._images = 0

    @classmethod
    def from_config(cls, options: ClassHardnessOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        return cls(
            context.predictor(options.predictor, where="filters.class-hardness.predictor"),
            labels=context.labels,
            batch_size=options.batch_size,
            device=context.device,
        )

    def prepare(self, context: FilterContext) -> None:
        """Measure m_c on the real samples and rank all condition masks."""
        losses = class_losses(self._segmenter, context)
        hardness = {condition: losses.hardness(mask) for condition, mask in context.conditions()}
        order = sorted(hardness, key=lambda condition: (hardness[condition], condition))
        self._ranks = {condition: (rank, hardness[condition]) for rank, condition in enumerate(order)}
        self._images = context.samples_per_condition

    def _judge(self, group: Group) -> Sequence[Verdict]:
        if group.id not in self._ranks:
            raise SampleError(
                "class-hardness has not ranked this mask",
                where=f"group {group.id}",
                hint="Call prepare(context) first; its conditions must hold every group",
            )
        rank, hardness = self._ranks[group.id]
        count = len(self._ranks)
        keep = images_to_keep(rank, count, self._images)
        scores = {"hardness": hardness, "rank": float(rank)}
        reason = f"its mask is number {rank + 1} of {count} by hardness and keeps {keep} of {self._images} images"
        return [
            Verdict(True, scores=scores) if place < keep else Verdict(False, reason, scores=scores)
            for place in range(len(group.samples))
        ]
