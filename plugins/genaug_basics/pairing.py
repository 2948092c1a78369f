"""Which image of the partner batch goes with which image of the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from genaug.batch import Batch
from genaug.errors import SampleError
from genaug.mixture import Mixture


def donors(batch: Batch, partner: Batch) -> Tensor:
    """Return int64 ``[B]``: sample i takes from the partner's sample i, counted round where the partner is shorter.

    Raises:
        SampleError: The partner has no image.
    """
    if len(partner) == 0:
        raise SampleError("a partner batch without images", allowed="at least one image")
    return torch.arange(len(batch), device=batch.images.device) % len(partner)


def paste(mask: Tensor, batch: Batch, partner: Batch) -> Batch:
    """Paste the partner's pixels where the mask, bool ``[B, H, W]``, is True; sources as `donors` says."""
    sources = torch.arange(len(batch), device=mask.device)
    return Mixture(mask, sources, donors(batch, partner)).paste(batch, partner)
