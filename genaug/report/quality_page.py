"""Renders the quality page: charts, tables, the worst and the best images beside ordinary real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from genaug.labels import LabelSpace
from genaug.report.charts import HEIGHT, WIDTH, Chart, chart
from genaug.report.digits import told_row
from genaug.report.figures import Measured, Show, Statistic
from genaug.report.gallery import environment, figure
from genaug.report.intervals import FEWEST
from genaug.report.pictures import Picture, mask_picture, photo
from genaug.report.sample_sets import SampleSet

#: Images in a row of the worst, the best, and the ordinary real ones.
WORST, ORDINARY = 8, 4


@dataclass(frozen=True, slots=True)
class Section:
    """A finished section.

    Args:
        name: Its component.
        report: What ``quality.json`` says of it.
        measured: Set -> what was measured.
        statistics: Those of ``report["statistics"]``, in the same order.
        ranked: Names of the statistics to show the worst and best images by.
        shows: Further rows of pictures.
    """

    name: str
    report: Mapping[str, Any]
    measured: Mapping[str, Measured]
    statistics: Sequence[Statistic]
    ranked: Sequence[str]
    shows: Sequence[Show]


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """One picture of a row."""

    set: str
    id: str
    caption: str
    image: Picture
    mask: Picture | None


def render_quality(
    report: Mapping[str, Any],
    sections: Sequence[Section],
    sets: Mapping[str, SampleSet],
    labels: LabelSpace,
    *,
    nothing: str,
) -> str:
    """Return the page: one file that needs no network and nothing beside it. `nothing` stands in place of flags."""
    shows = [(section, show) for section in sections for show in (*_rankings(section), *section.shows)]
    bar = tqdm(total=sum(len(s.pictures) for _, s in shows), desc="draw pictures", delay=1, leave=False)
    rows: dict[str, list[tuple[str, list[ShownPicture]]]] = {section.name: [] for section in sections}
    for section, show in shows:
        pictures = []
        for name, key, caption in show.pictures:
            pictures.append(_picture(sets[name], name, key, caption, labels))
            bar.update()
        rows[section.name].append((show.title, pictures))
    bar.close()
    return environment().get_template("quality.html.j2").render(
        report=report,
        sections=sections,
        charts={section.name: _charts(section) for section in sections},
        by_class={section.name: _by_class(section) for section in sections},
        rows=rows,
        size=(WIDTH, HEIGHT),
        told_row=told_row,
        fewest=FEWEST,
        nothing=nothing,
        told_groups=told_groups,
    )  # fmt: skip


def told_groups(about: Mapping[str, Any]) -> str:
    """Return how many independent groups the images of a set are, in words; empty where each is one."""
    if about["by"] is None:
        return f" from {about['groups']} conditions" if about["groups"] < about["images"] else ""
    alone = f", which is in the names of all but {about['unmatched']} images" if about["unmatched"] else ""
    return f" in {about['groups']} groups by '{about['by']}'{alone}"


def _charts(section: Section) -> list[tuple[Mapping[str, Any], Chart | None]]:
    """Return every statistic that is not about one class with its drawing."""
    result = []
    for statistic, row in zip(section.statistics, section.report["statistics"], strict=True):
        if statistic.by is not None:
            continue
        numbers = {s: _per_image(m, statistic) for s, m in section.measured.items()}
        estimates = {
            s: (row[s]["value"], *row[s]["interval"]) for s in section.measured if row[s]["interval"] is not None
        }
        result.append((row, chart(numbers, estimates)))
    return result


def _per_image(measured: Measured, statistic: Statistic) -> Any:
    value = measured.numbers(statistic.value)
    if statistic.per is None:
        return value
    weight = measured.numbers(statistic.per)
    return np.divide(value, weight, out=np.full(len(value), np.nan), where=weight > 0)


def _by_class(section: Section) -> tuple[list[str], list[tuple[str, list[Mapping[str, Any]]]]]:
    """Return the titles of the statistics by class, and class -> their rows, in the order of the titles."""
    rows = [row for row in section.report["statistics"] if row["by"] is not None]
    titles = list(dict.fromkeys(row["title"] for row in rows))
    table: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        table.setdefault(row["by"], {})[row["title"]] = row
    return titles, [(name, [found[t] for t in titles if t in found]) for name, found in table.items()]


def _rankings(section: Section) -> Iterator[Show]:
    """Yield the worst, the best, and ordinary real images by each ranked statistic."""
    by_name = {s.name: s for s in section.statistics}
    for name in section.ranked:
        if name not in by_name:
            continue
        statistic = by_name[name]
        order = _order(section.measured["synthetic"], statistic)
        ends = min(WORST, len(order) // 2)
        for title, chosen in (
            (f"Worst by {statistic.title}", order[:ends]),
            ("Best", order[len(order) - ends :][::-1]),
        ):
            yield Show(title, tuple(("synthetic", key, figure(value)) for value, key in chosen))
        real = _order(section.measured["real"], statistic)
        middle = len(real) // 2
        ordinary = real[max(0, middle - ORDINARY // 2) : middle + ORDINARY // 2]
        yield Show("Real images about the median", tuple(("real", key, figure(value)) for value, key in ordinary))


def _order(measured: Measured, statistic: Statistic) -> list[tuple[float, str]]:
    """Return ``(number, id)`` of the images that have one, worst first."""
    values = _per_image(measured, statistic)
    known = [(float(v), key) for v, key in zip(values, measured.ids, strict=True) if np.isfinite(v)]
    return sorted(known, key=lambda item: (-item[0] if statistic.worse == "higher" else item[0], item[1]))


def _picture(samples: SampleSet, name: str, key: str, caption: str, labels: LabelSpace) -> ShownPicture:
    sample = samples.load(key)
    assert sample.image is not None  # it was measured
    mask = None if sample.mask is None else mask_picture(sample.mask, labels)
    return ShownPicture(name, key, caption, photo(sample.image), mask)
