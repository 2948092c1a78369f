"""What every filter of pixels says in the same words: shares of pixels kept, and the verdict they lead to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from genaug.labels import LabelSpace
from genaug.types import Mask, Verdict


def kept_scores(before: Mask, after: Mask, labels: LabelSpace) -> dict[str, float]:
    """Return what share of the labelled pixels stays labelled, overall and by class.

    Args:
        before: uint8 ``[H, W]``.
        after: `before` with more pixels set to the ignore index.
        labels: Class table.

    Returns:
        ``{"kept": share, "kept/<class name>": share, ...}`` in ``[0, 1]`` for the classes in `before`; empty if it has
        no labelled pixel. Classes that share a name are told apart as ``<name> (<id>)``.
    """
    old = np.bincount(before.ravel(), minlength=256)
    new = np.bincount(after.ravel(), minlength=256)
    ids = [i for i in labels.ids if old[i]]
    if not ids:
        return {}
    scores = {"kept": float(new[ids].sum() / old[ids].sum())}
    uses = Counter(labels.names.values())
    for i in ids:
        name = labels.names[i] if uses[labels.names[i]] == 1 else f"{labels.names[i]} ({i})"
        scores[f"kept/{name}"] = float(new[i] / old[i])
    return scores


def pixel_verdict(
    before: Mask, after: Mask, labels: LabelSpace, *, min_kept: float, more: Mapping[str, float]
) -> Verdict:
    """Return the verdict of a filter that ignores pixels: `after`, its scores, dropped below `min_kept`.

    Args:
        before: uint8 ``[H, W]``, the sample's mask.
        after: uint8 ``[H, W]``, `before` with more pixels set to the ignore index.
        labels: Class table.
        min_kept: The least share of labelled pixels to stay; a mask without labelled pixels is never dropped.
        more: The filter's own scores.
    """
    scores = {**kept_scores(before, after, labels), **more}
    kept = scores.get("kept", 1.0)
    if kept < min_kept:
        reason = f"only {kept:.1%} of its labelled pixels were kept (min_kept {min_kept:g})"
        return Verdict(False, reason, after, scores)
    return Verdict(True, mask=after, scores=scores)
