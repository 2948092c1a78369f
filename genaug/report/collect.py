"""One pass over a store's rows: what was made, what the filters said, how much of it is left to train on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from genaug.store.journal import Row
from genaug.store.store import SampleStore
from genaug.store.verdicts import FilterResults, group_digest
from genaug.store.views import nothing_left

BINS = 10
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?|#")
_PLACE = re.compile("#")


class Reasons:
    """Reasons in words, counted together where only their numbers differ."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        #: Words with a # for every number -> the numbers, None for those that differ.
        self._numbers: dict[str, list[str | None]] = {}

    def add(self, reason: str) -> None:
        """Count one."""
        words, numbers = _NUMBER.sub("#", reason), _NUMBER.findall(reason)
        before = self._numbers.setdefault(words, numbers)
        self._numbers[words] = [a if a == b else None for a, b in zip(before, numbers, strict=True)]
        self._counts[words] += 1

    def table(self) -> list[dict[str, Any]]:
        """Return ``{reason, count}``, commonest first; a number that differs between them is written as #."""
        return [
            {"reason": self._in_words(words), "count": count}
            for words, count in sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        ]

    def _in_words(self, words: str) -> str:
        numbers = iter(self._numbers[words])
        return _PLACE.sub(lambda _: next(numbers, None) or "#", words)


@dataclass(slots=True)
class FilterFigures:
    """What one filter did to the whole store.

    Args:
        name: Its name in the recipe.
        use: The component.
    """

    name: str
    use: str
    judged: int = 0
    dropped: int = 0
    pending: int = 0
    ignored: float = 0.0
    reasons: Reasons = field(default_factory=Reasons)
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    scores: dict[str, tuple[float, float, float, int]] = field(default_factory=dict)

    def add(self, row: Row, verdict: Row | None) -> None:
        """Count one sample's manifest row and this filter's verdict on it, None if there is none."""
        if verdict is None:
            self.pending += 1
            return
        self.judged += 1
        self.ignored += verdict["ignored"] - row["ignored"]
        share = kept_share(row["ignored"], verdict["ignored"])
        self.histogram[min(int(share * BINS), BINS - 1)] += 1
        if not verdict["keep"]:
            self.dropped += 1
            self.reasons.add(verdict["reason"])
        for name, value in verdict["scores"].items():
            if "/" not in name:  # figures of single classes have a table of their own
                low, high, total, count = self.scores.get(name, (value, value, 0.0, 0))
                self.scores[name] = (min(low, value), max(high, value), total + value, count + 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; ``ignored_share`` is of all pixels, beyond what the masks ignored before."""
        return {
            "name": self.name,
            "use": self.use,
            "judged": self.judged,
            "pending": self.pending,
            "dropped": self.dropped,
            "ignored_share": self.ignored / self.judged if self.judged else 0.0,
            "kept_histogram": self.histogram,
            "reasons": self.reasons.table(),
            "scores": {
                name: {"min": low, "max": high, "mean": total / count}
                for name, (low, high, total, count) in sorted(self.scores.items())
            },
        }


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """One condition: the keys of its samples, and the mean share of their labelled pixels that is left to train on."""

    id: str
    keys: tuple[str, ...]
    share: float


@dataclass(slots=True)
class Collected:
    """What `collect` found; `empty` counts what no filter drops but what has no labelled pixel left."""

    filters: list[FilterFigures]
    groups: list[GroupSummary] = field(default_factory=list)
    made: int = 0
    dropped: int = 0
    empty: int = 0
    refused: Reasons = field(default_factory=Reasons)

    @property
    def pending(self) -> bool:
        """True while a filter has samples to judge."""
        return any(f.pending for f in self.filters)


class Verdicts:
    """The verdicts on a store's present samples.

    Args:
        store: The store.
    """

    def __init__(self, store: SampleStore) -> None:
        self._results = [FilterResults(store.path, name) for name in store.filters]

    def of(self, rows: list[Row]) -> Iterator[tuple[Row, dict[str, Row]]]:
        """Yield each row of a group with filter name -> verdict; one on files that have changed since is left out."""
        fresh = group_digest(rows) if self._results else ""
        for row in rows:
            found = {result.name: result.index.get(row["key"]) for result in self._results}
            yield row, {name: v for name, v in found.items() if v is not None and v["group"] == fresh}


def collect(store: SampleStore) -> Collected:
    """Read all rows of a store once."""
    uses = {_label(part): str(part["use"]) for part in store.info["recipe"].get("filters", [])}
    result = Collected([FilterFigures(name, uses.get(name, name)) for name in store.filters])
    for key in sorted(store.index.refused):
        result.refused.add(store.row(key)["refused"])
    verdicts = Verdicts(store)
    total = len(store.group_keys())
    for rows in tqdm(store.grouped_rows(), desc="read rows", total=total, unit="group", delay=1, leave=False):
        shares = []
        for row, found in verdicts.of(rows):
            for figures in result.filters:
                figures.add(row, found.get(figures.name))
            keep = all(v["keep"] for v in found.values())
            # Filters that ignore other pixels than one another leave less; the gallery shows the exact share.
            ignored = max([row["ignored"], *(v["ignored"] for v in found.values())])
            empty = keep and nothing_left(store, row, found.values())
            shares.append(kept_share(row["ignored"], ignored) if keep and not empty else 0.0)
            result.made += 1
            result.dropped += not keep
            result.empty += empty
        keys = tuple(row["key"] for row in rows)
        result.groups.append(GroupSummary(rows[0]["id"], keys, sum(shares) / len(shares)))
    return result


def kept_share(before: float, after: float) -> float:
    """Return the share of labelled pixels that stays, from the ignored shares before and after; 1 if there are none."""
    return (1 - after) / (1 - before) if before < 1 else 1.0


def _label(part: Mapping[str, Any]) -> str:
    return str(part.get("name") or part["use"])
