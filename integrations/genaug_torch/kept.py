"""Tells the user when labels never arrive: a loop whose every pseudo-label is below the threshold looks healthy."""

from __future__ import annotations

import torch
from torch import Tensor

from genaug.errors import warn_caller

#: Batches without a single pseudo-label before the warning.
SILENT = 200


class KeptWatch:
    """Warns once if the first `SILENT` labelled batches hold no pseudo-label at all.

    Waits for the device when the last of them has come, and never before.
    """

    def __init__(self) -> None:
        self.batches = 0
        self._kept: Tensor | None = None
        self._nan_rows: Tensor | None = None
        self._surest: Tensor | None = None

    def look(self, kept: Tensor, nan_rows: Tensor, image_confidence: Tensor | None = None) -> None:
        """Count one batch.

        Args:
            kept: Share of its pixels that got a label, a number.
            nan_rows: Number of its pixels whose predictions are not finite.
            image_confidence: float ``[B]``, what a labeler may gate images by.
        """
        if self.batches == SILENT:
            return
        self.batches += 1
        self._kept = kept if self._kept is None else torch.maximum(self._kept, kept)
        self._nan_rows = nan_rows if self._nan_rows is None else torch.maximum(self._nan_rows, nan_rows)
        if image_confidence is not None and image_confidence.numel():
            surest = image_confidence.detach().max()
            self._surest = surest if self._surest is None else torch.maximum(self._surest, surest)
        if self.batches == SILENT:
            if not float(self._kept):
                warn_caller(self._sentence(int(self._nan_rows)))
            self._kept = self._nan_rows = self._surest = None

    def _sentence(self, nan_rows: int) -> str:
        if nan_rows:
            return (
                f"no pixel of the first {SILENT} unlabelled batches got a label, so they teach nothing. The teacher's "
                f"predictions are not finite at up to {nan_rows} pixels of a batch: look for NaN or infinite weights "
                "and outputs (the figure nan_rows counts them)"
            )
        gate = "" if self._surest is None else f" (the surest image has {float(self._surest):.2f}; see image_gate)"
        return (
            f"no pixel of the first {SILENT} unlabelled batches got a label, so they teach nothing. Lower the "
            f"labeler's threshold{gate}, or train on labels alone for longer (supervised.burn_in)"
        )
