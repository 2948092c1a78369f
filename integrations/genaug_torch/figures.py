"""What pseudo-labels look like, as figures to log; tensors on the device, so that nothing waits for it."""

from __future__ import annotations

import torch
from torch import Tensor

from genaug.predictions import Predictions, PseudoTargets


@torch.no_grad()
def label_figures(
    targets: PseudoTargets, predictions: Predictions, valid: Tensor | None = None, *, ignore_index: int = 255
) -> dict[str, Tensor]:
    """Describe the pseudo-labels of a batch (of this process).

    Args:
        targets: What the labeler gave.
        predictions: What it was given.
        valid: bool ``[B, H, W]``; all True by default.
        ignore_index: Label of ignored pixels.

    Returns:
        ``kept``, share of valid pixels with a weight above 0; ``kept_by_class`` ``[K]``, the same among the pixels
        whose target is the class (NaN for classes without any); ``live_classes``, number of classes with a kept
        pixel; ``flip_rate``, share of kept pixels whose target is not the teacher's own class; ``entropy``, mean
        entropy of the teacher over valid pixels, in nats; ``nan_rows``, number of valid pixels that the teacher's
        predictions say nothing of, because they are not finite: the other figures leave them out.
    """
    count, finite = predictions.num_classes, predictions.finite()
    inside = finite if valid is None else valid & finite
    kept = (targets.weights > 0) & inside & (targets.hard != ignore_index)
    predicted = predictions.values.argmax(1) if targets.predicted is None else targets.predicted
    # A pixel below the threshold may have no target of its own: it counts with the class that the teacher sees.
    classes = torch.where(targets.hard == ignore_index, predicted, targets.hard)
    # Whole numbers: float32 stops counting at 16,777,216 pixels of a class.
    per_class, kept_per_class = (
        torch.zeros(count, dtype=torch.int64, device=kept.device).index_add_(
            0, classes.flatten(), which.flatten().long()
        )
        for which in (inside, kept)
    )
    kept_pixels = kept.sum().clamp_min(1)
    entropy = torch.where(inside, predictions.entropy(), 0.0)
    return {
        "kept": kept.sum() / inside.sum().clamp_min(1),
        "kept_by_class": kept_per_class / per_class,
        "live_classes": (kept_per_class > 0).sum(),
        "flip_rate": (kept & (targets.hard != predicted)).sum() / kept_pixels,
        "entropy": entropy.nansum() / inside.sum().clamp_min(1),
        "nan_rows": (~finite if valid is None else valid & ~finite).sum(),
    }
