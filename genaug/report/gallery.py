"""Chooses what the page shows of a large store, reads it, and renders the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from tqdm import tqdm

from genaug.labels import LabelSpace
from genaug.report.classes import evenly
from genaug.report.collect import GroupSummary, Verdicts, kept_share
from genaug.report.pictures import Picture, mask_picture, photo
from genaug.report.training import HEIGHT, WIDTH, Training
from genaug.store.journal import Row
from genaug.store.store import SampleStore
from genaug.store.views import NOTHING_LEFT, combine
from genaug.types import Image

#: Images shown of one condition; the others are counted.
IMAGES = 10


@dataclass(frozen=True, slots=True)
class Chosen:
    """A run of conditions under one heading."""

    title: str
    note: str
    groups: list[GroupSummary]


@dataclass(frozen=True, slots=True)
class Shown:
    """One generated image on the page.

    Args:
        key: Its key.
        k: Its number within the condition.
        image: The image.
        mask: Its mask, hatched where a filter ignores pixels; None if nothing was ignored.
        share: Share of its labelled pixels that is left to train on; 0 when dropped.
        dropped: ``(what happened, reason)`` for each filter that drops it, or if no pixel is left.
        pending: Filters that have not judged it.
        scores: ``(filter, [(name, value), ...])``, without figures of single classes.
    """

    key: str
    k: int
    image: Picture
    mask: Picture | None
    share: float
    dropped: list[tuple[str, str]]
    pending: list[str]
    scores: list[tuple[str, list[tuple[str, float]]]]


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """One condition on the page, a mask or the words of a prompt; `more` of its images are not shown."""

    id: str
    condition: Picture | None
    prompt: str | None
    real: Picture | None
    share: float
    samples: list[Shown]
    more: int
    size: tuple[int, int]


def choose(groups: Sequence[GroupSummary], limit: int) -> list[Chosen]:
    """Choose at most `limit` conditions: all, or those the filters left least of, most of, and others in between.

    The choice depends on the store alone. No condition appears twice.
    """
    if len(groups) <= limit:
        return [Chosen("All conditions", "in the order of the store", list(groups))] if groups else []
    order = sorted(range(len(groups)), key=lambda i: (groups[i].share, groups[i].id))
    ends = max(1, limit // 4) if limit >= 3 else 0
    worst, best = order[:ends], order[len(order) - ends :][::-1]
    rest = sorted(order[ends : len(order) - ends])
    middle = [rest[i] for i in evenly(len(rest), limit - 2 * ends)]
    parts = [
        Chosen("Least left to train on", "the conditions that lose most to the filters", [groups[i] for i in worst]),
        Chosen("A cross-section", "evenly spread over the store", [groups[i] for i in middle]),
        Chosen("Most left to train on", "the conditions that lose least to the filters", [groups[i] for i in best]),
    ]
    return [part for part in parts if part.groups]


def read_group(
    store: SampleStore, summary: GroupSummary, verdicts: Verdicts, real: Callable[[str], Image | None]
) -> ShownGroup:
    """Read what the page shows of one condition.

    Args:
        store: The store.
        summary: The condition.
        verdicts: What the filters said.
        real: Condition id -> the real image that its mask was drawn for, None if there is none.
    """
    labels = store.labels
    rows = store.rows_of(summary.keys)
    judged = list(verdicts.of(rows))
    condition = store.condition(rows[0])
    photograph = real(summary.id)
    return ShownGroup(
        summary.id,
        None if condition is None else mask_picture(condition, labels),
        rows[0]["meta"].get("prompt"),
        None if photograph is None else photo(photograph),
        summary.share,
        [_read_sample(store, row, found, labels) for row, found in judged[:IMAGES]],
        max(0, len(rows) - IMAGES),
        (int(rows[0]["size"][0]), int(rows[0]["size"][1])),
    )


def _read_sample(store: SampleStore, row: Row, found: Mapping[str, Row], labels: LabelSpace) -> Shown:
    sample = store.load(row)
    assert sample.image is not None  # refused draws are in no group
    dropped = [(f"dropped by {name}", v["reason"]) for name, v in found.items() if not v["keep"]]
    picture, share = None, 1.0
    if sample.mask is not None:
        left = combine(store, sample.mask, [v["mask"] for v in found.values() if v["mask"] is not None])
        newly = left != sample.mask
        before, after = (float(np.mean(m == labels.ignore_index)) for m in (sample.mask, left))
        picture, share = mask_picture(left, labels, newly) if newly.any() else None, kept_share(before, after)
        if not dropped and after == 1:
            dropped = [("left out", NOTHING_LEFT)]
    return Shown(
        row["key"],
        row["k"],
        photo(sample.image),
        picture,
        0.0 if dropped else share,
        dropped,
        [name for name in store.filters if name not in found],
        [(name, scores) for name, f in found.items() if (scores := _overall(f["scores"]))],
    )


def _overall(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in scores.items() if "/" not in name]


def render(
    store: SampleStore,
    report: Mapping[str, Any],
    groups: Sequence[GroupSummary],
    trainings: Sequence[Training],
    *,
    limit: int,
    real: Callable[[str], Image | None],
) -> str:
    """Return the page.

    Args:
        store: The store.
        report: Figures, as in ``report.json``.
        groups: All groups of the store.
        trainings: What the adapters' folders hold.
        limit: Conditions to show.
        real: Condition id -> real image or None.
    """
    verdicts = Verdicts(store)
    chosen = choose(groups, limit)
    bar = tqdm(total=sum(len(c.groups) for c in chosen), desc="draw gallery", unit="group", delay=1, leave=False)
    sections = []
    for part in chosen:
        shown = []
        for summary in part.groups:
            shown.append(read_group(store, summary, verdicts, real))
            bar.update()
        sections.append((part, shown))
    bar.close()
    return (
        environment()
        .get_template("gallery.html.j2")
        .render(
            report=report,
            sections=sections,
            shown=sum(len(groups) for _, groups in sections),
            trainings=trainings,
            curve_size=(WIDTH, HEIGHT),
            nothing_left=NOTHING_LEFT,
            colors={i: store.labels.color(i) for i in (*store.labels.ids, store.labels.ignore_index)},
            ignore_index=store.labels.ignore_index,
        )
    )


def environment() -> jinja2.Environment:
    """Return what renders the pages of this package."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("genaug.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "figure": figure, "ink": ink}
    return made


def percent(value: float | None) -> str:
    """Return ``'87 %'``; tenths where they matter, a dash for None."""
    if value is None:
        return "–"
    points = 100 * value
    near_an_end = 0 < points < 10 or 90 < points < 100
    text = f"{points:.1f}" if near_an_end else f"{points:.0f}"
    return f"{text}\u202f%"


def figure(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:.3g}"


def ink(color: tuple[int, int, int]) -> str:
    """Return the text colour, black or white, that is easier to read on `color`."""
    red, green, blue = color
    return "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
