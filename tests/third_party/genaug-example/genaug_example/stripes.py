"""A mixer that pastes the right part of another image."""

import torch

from genaug import Mixer, Rng
from genaug.batch import Batch
from genaug.mixture import Mixture


class Stripes(Mixer):
    """Pastes all columns right of a drawn one from the partner's sample i, labels included.

    Args:
        least: Least share of the width that stays the image's own, in [0, 1].
    """

    def __init__(self, *, least: float = 0.25) -> None:
        self.least = least

    def _mix(self, batch: Batch, partner: Batch, rng: Rng) -> Batch:
        height, width = batch.size
        starts = [rng.child(batch.first + i).numpy().uniform(self.least, 1) * width for i in range(len(batch))]
        device = batch.images.device
        mask = torch.arange(width, device=device) >= torch.tensor(starts, device=device).unsqueeze(1)
        sources = torch.arange(len(batch), device=device)
        pasted = mask.unsqueeze(1).expand(-1, height, -1)
        return Mixture(pasted, sources, sources % len(partner)).paste(batch, partner)
