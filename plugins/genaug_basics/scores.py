"""Figures that every filter of pixels gives in the same words."""

from __future__ import annotations

from collections import Counter

import numpy as np

from genaug.labels import LabelSpace
from genaug.types import Mask


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
