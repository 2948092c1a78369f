"""ClassMix: half of another image's classes, cut out along their predicted outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from genaug.batch import Batch
from genaug.errors import ConfigError, SampleError
from genaug.interfaces import Mixer
from genaug.labels import MAX_ID
from genaug.rng import Rng
from genaug_basics.pairing import donors, paste

if TYPE_CHECKING:
    from genaug.recipe import BuildContext


class ClassMix(Mixer):
    """Pastes the pixels of half of the classes of the partner image (ClassMix, WACV 2021, algorithm 1).

    Of n classes present in the partner's pseudo-labels, ``n // 2`` are drawn, all sets being equally likely, as the
    released code does (odd numbers are rounded down, so an image of one class gives nothing). Pixels without a class
    are never pasted. To cut along all predicted outlines as the paper does, label without dropping pixels (labeler
    ``threshold`` with ``weighting: share`` or ``threshold: 0``); otherwise sure pixels alone are pasted.

    Args:
        num_classes: K, 1 to 255. Targets are class indices below it; any other number, the ignore index above all,
            means no class.

    Raises:
        ConfigError: Another number of classes.
    """

    needs_targets = True

    def __init__(self, *, num_classes: int = MAX_ID) -> None:
        if not 1 <= num_classes <= MAX_ID:
            raise ConfigError(f"{num_classes} classes", where="mixer classmix", allowed=f"1 to {MAX_ID}")
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, options: None, context: BuildContext) -> Self:  # noqa: ARG003
        """Build for a recipe's classes; there are no options."""
        return cls(num_classes=len(context.labels.ids))

    def _mix(self, batch: Batch, partner: Batch, rng: Rng) -> Batch:
        if partner.targets is None:
            raise SampleError("a partner without targets", where="ClassMix", allowed="pseudo-labelled images")
        classes = partner.targets[donors(batch, partner)]
        streams = [rng.child(batch.first + i).torch() for i in range(len(batch))]
        priority = [torch.randperm(self.num_classes, generator=stream) for stream in streams]
        if not priority:
            return paste(classes != classes, batch, partner)
        return paste(half_of_classes(classes, torch.stack(priority).to(classes.device)), batch, partner)


def half_of_classes(targets: Tensor, priority: Tensor) -> Tensor:
    """Return bool ``[B, H, W]``, True on the ``n // 2`` present classes that come first in each sample's priority.

    Stays on the device: nothing waits for the number of classes.

    Args:
        targets: int64 ``[B, H, W]``; indices outside ``0..K-1`` are no class.
        priority: int64 ``[B, K]``, a permutation of ``0..K-1`` for each sample; the smallest comes first.
    """
    B, K = priority.shape
    index = torch.where((targets >= 0) & (targets < K), targets, K).flatten(1)
    present = torch.zeros(B, K + 1, dtype=torch.bool, device=targets.device)
    present = present.scatter_(1, index, True)[:, :K]
    place = torch.where(present, priority, K).argsort(1).argsort(1)
    chosen = present & (place < present.sum(1, keepdim=True) // 2)
    padded = torch.cat([chosen, chosen.new_zeros(B, 1)], 1)
    return padded.gather(1, index).view_as(targets)
