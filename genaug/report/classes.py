"""What is left of every class: needs the masks themselves, so large stores are looked at in part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from genaug.report.collect import GroupSummary, Verdicts
from genaug.store.store import SampleStore
from genaug.store.views import combine
from genaug.types import Mask

#: Samples whose masks are read for the class table; a minute's work.
SAMPLES = 2000

Counts = NDArray[np.int64]


def evenly(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` of the numbers ``0 .. count - 1``, evenly spread."""
    if wanted >= count:
        return list(range(count))
    return [int((i + 0.5) * count / wanted) for i in range(wanted)]


def class_table(
    store: SampleStore, groups: Sequence[GroupSummary], *, samples: int = SAMPLES
) -> tuple[list[dict[str, Any]], int]:
    """Count pixels of every class in conditions and in what the filters leave.

    Args:
        store: The store.
        groups: All its groups.
        samples: At most so many samples are looked at, in evenly spread whole groups, at least one group.

    Returns:
        One row per class: ``id``, ``name``, ``conditions`` (how many hold it), ``pixels`` and ``share`` (of the
        conditions' labelled pixels), ``kept`` (filter -> share of the samples' labelled pixels that it keeps, of
        samples it does not drop) and ``training`` (share that all filters together leave). Shares are None where there
        is no pixel. And the number of groups looked at.
    """
    mean = max(1.0, sum(len(g.keys) for g in groups) / max(1, len(groups)))
    chosen = [groups[i] for i in evenly(len(groups), max(1, int(samples / mean)))]
    ids = list(store.labels.ids)
    pixels, conditions = np.zeros(256, np.int64), np.zeros(256, np.int64)
    before, training = np.zeros(256, np.int64), np.zeros(256, np.int64)
    kept = {name: (np.zeros(256, np.int64), np.zeros(256, np.int64)) for name in store.filters}
    verdicts = Verdicts(store)
    for group in tqdm(chosen, desc="count pixels", unit="group", delay=1, leave=False):
        rows = store.rows_of(group.keys)
        condition = store.condition(rows[0])
        if condition is not None:
            counted = _count(condition)
            pixels += counted
            conditions += counted > 0
        for row, found in verdicts.of(rows):
            if row["mask"] is None:
                continue
            mask = store.mask(row["mask"])
            start = _count(mask)
            before += start
            for name, verdict in found.items():
                kept[name][0][:] += start
                if verdict["keep"]:
                    kept[name][1][:] += start if verdict["mask"] is None else _count(store.mask(verdict["mask"]))
            if all(v["keep"] for v in found.values()):
                changed = [v["mask"] for v in found.values() if v["mask"] is not None]
                training += _count(combine(store, mask, changed))
    total = int(pixels[ids].sum())
    table = [
        {
            "id": i,
            "name": store.labels.names[i],
            "conditions": int(conditions[i]),
            "pixels": int(pixels[i]),
            "share": _share(pixels[i], total),
            "kept": {name: _share(after[i], start[i]) for name, (start, after) in kept.items()},
            "training": _share(training[i], before[i]),
        }
        for i in ids
    ]
    return table, len(chosen)


def _count(mask: Mask) -> Counts:
    counts: Counts = np.bincount(mask.ravel(), minlength=256).astype(np.int64)
    return counts


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None
