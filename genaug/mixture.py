"""Which pixel of a mixed batch comes from where: one description, applied to images, labels and predictions alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genaug.batch import Batch
from genaug.errors import SampleError
from genaug.predictions import Predictions


@dataclass(frozen=True, slots=True)
class Mixture:
    """A plan to paste pixels of a partner batch into a batch, at the same places.

    Args:
        mask: bool ``[R, H, W]``, True where result r takes the partner's pixel.
        sources: int64 ``[R]``, which sample of the batch result r starts from.
        donors: int64 ``[R]``, which sample of the partner it takes pixels from.
    """

    mask: Tensor
    sources: Tensor
    donors: Tensor

    def apply(self, own: Tensor, other: Tensor) -> Tensor:
        """Mix ``[B, ..., H, W]`` with ``[M, ..., H, W]`` to ``[R, ..., H, W]``; values are copied, never averaged."""
        if own.shape[1:] != other.shape[1:]:
            raise SampleError(
                f"tensors of shape {tuple(own.shape)} and {tuple(other.shape)}",
                allowed="equal shapes but for the number of samples",
            )
        if own.device.type != "cpu" or own.requires_grad or other.requires_grad or own.dtype != other.dtype:
            mask = self.mask.view(len(self.mask), *[1] * (own.ndim - 3), *self.mask.shape[1:])
            return torch.where(mask, other[self.donors], own[self.sources])
        # On a CPU, gathering sources and donors first takes longer than the mixing: write result by result.
        mixed = own.new_empty(len(self.mask), *own.shape[1:])
        plan = zip(mixed, self.mask, self.sources.tolist(), self.donors.tolist(), strict=True)
        for result, chosen, source, donor in plan:
            torch.where(chosen, other[donor], own[source], out=result)
        return mixed

    def paste(self, batch: Batch, partner: Batch) -> Batch:
        """Mix two batches; the inputs stay untouched.

        Pixels without weights count 1, a partner without distributions has one-hot ones. Where the partner has no
        predictions, the batch's own stay. The provenance of the result is 1 where a pixel is the partner's.
        """
        mixed = Batch(
            self.apply(batch.images, partner.images),
            weights=self.apply(_ones(batch.weights, batch), _ones(partner.weights, partner)),
            valid=self.apply(_valid(batch), _valid(partner)),
            provenance=self.mask.long(),
            first=batch.first,
        )
        if batch.targets is not None and partner.targets is not None:
            mixed = replace(mixed, targets=self.apply(batch.targets, partner.targets))
            if batch.soft is not None:
                certain = partner.soft.log_probs if partner.soft else batch.soft.certain(partner.targets)
                mixed = replace(mixed, soft=batch.soft.map(lambda own: self.apply(own, certain)))
        if batch.predictions is not None:
            mixed = replace(mixed, predictions=self._predictions(batch.predictions, partner.predictions))
        return mixed

    def _predictions(self, own: Predictions, other: Predictions | None) -> Predictions:
        if other is not None and other.kind != own.kind:
            raise SampleError(f"predictions of kinds {own.kind} and {other.kind}", allowed="equal kinds")
        values = own.values[self.sources] if other is None else self.apply(own.values, other.values)
        confidence = None if own.image_confidence is None else own.image_confidence[self.sources]
        return Predictions(values, own.kind, confidence)


def _ones(weights: Tensor | None, batch: Batch) -> Tensor:
    if weights is not None:
        return weights
    return torch.ones(len(batch), *batch.size, device=batch.images.device)


def _valid(batch: Batch) -> Tensor:
    if batch.valid is not None:
        return batch.valid
    return torch.ones(len(batch), *batch.size, dtype=torch.bool, device=batch.images.device)
