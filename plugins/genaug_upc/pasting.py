"""A mixture that is carried out image by image on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from genaug.errors import SampleError
from genaug.mixture import Mixture


class ImagewiseMixture(Mixture):
    """`Mixture` whose results are written one by one on a CPU, and at once elsewhere.

    Gathering all sources and all donors first makes two more copies of the batch, which on a CPU take longer than the
    mixing: 0.21 s against 0.08 s for 16 images of 513x513 pixels with labels and weights.
    """

    __slots__ = ()

    def apply(self, own: Tensor, other: Tensor) -> Tensor:
        """Mix ``[B, ..., H, W]`` with ``[M, ..., H, W]`` to ``[R, ..., H, W]``; values are copied, never averaged."""
        if own.device.type != "cpu" or own.requires_grad or other.requires_grad or own.dtype != other.dtype:
            return super().apply(own, other)
        if own.shape[1:] != other.shape[1:]:
            found = f"tensors of shape {tuple(own.shape)} and {tuple(other.shape)}"
            raise SampleError(found, allowed="equal shapes but for the number of samples")
        mixed = own.new_empty(len(self.mask), *own.shape[1:])
        for result, mask, source, donor in zip(
            mixed, self.mask, self.sources.tolist(), self.donors.tolist(), strict=True
        ):
            torch.where(mask, other[donor], own[source], out=result)
        return mixed
