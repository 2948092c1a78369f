"""Tells the user when labels never arrive: a training loop whose every pseudo-label is gated out looks healthy."""

from __future__ import annotations

import torch
from torch import Tensor

from genaug.errors import warn_caller
from genaug.predictions import Predictions, PseudoTargets

#: Batches without a single label before the warning.
SILENT = 200


class KeptWatch:
    """Warns once if the first `SILENT` batches of a labeler hold no label at all.

    Waits for the device when the last of them has come, and never before.

    Args:
        name: Of the labeler.
        image_gate: Its least confidence of an image, if it has one.
    """

    def __init__(self, name: str, image_gate: float | None = None) -> None:
        self.name, self.image_gate = name, image_gate
        self.batches = 0
        self._kept: Tensor | None = None
        self._surest: Tensor | None = None

    def look(self, targets: PseudoTargets, predictions: Predictions) -> None:
        """Count one batch."""
        if self.batches == SILENT:
            return
        self.batches += 1
        kept = (targets.weights > 0).any()
        self._kept = kept if self._kept is None else self._kept | kept
        confidence = predictions.image_confidence
        if confidence is not None and confidence.numel():
            surest = confidence.detach().max()
            self._surest = surest if self._surest is None else torch.maximum(self._surest, surest)
        if self.batches == SILENT:
            if not bool(self._kept):
                warn_caller(self._sentence())
            self._kept = self._surest = None

    def _sentence(self) -> str:
        sentence = f"{self.name} kept no pixel of its first {SILENT} batches: unlabelled images teach nothing."
        if self.image_gate is None or self._surest is None or float(self._surest) >= self.image_gate:
            return f"{sentence} Lower labeler.threshold, or train on labels alone for longer (supervised.burn_in)"
        return (
            f"{sentence} The surest image had a confidence of {float(self._surest):.2f}, "
            f"labeler.image_gate is {self.image_gate:g}: lower it"
        )
