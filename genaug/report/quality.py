"""The quality report: a synthetic set against the user's real images, section by section."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genaug.errors import ConfigError, PluginError, PluginWarning
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext, check_options
from genaug.report.digits import SAME, told, told_row
from genaug.report.figures import Conclusion, Figures, Measured, Sizes, Statistic
from genaug.report.intervals import DRAWS, FEWEST, LEVEL, Estimates, estimate, percentile_interval
from genaug.report.measure import Reader
from genaug.report.quality_page import Section, render_quality, told_groups
from genaug.report.sample_sets import SampleSet, all_told
from genaug.rng import Rng
from genaug.store.files import json_text, make_folder, sync_folder, write_whole

PAGE, FIGURES = "quality.html", "quality.json"
KIND = "figures"


def build_sections(
    context: BuildContext, options: Mapping[str, Mapping[str, Any]], skip: Sequence[str] = ()
) -> dict[str, Figures]:
    """Build the sections of a report, whichever plugins they come from.

    Args:
        context: Class table, device and where paths start.
        options: Section -> its options. A section whose options all have defaults needs no entry.
        skip: Sections to leave out.

    Raises:
        UnknownComponentError: A name in `options` or `skip` is no section.
        ConfigError: Options are wrong, a predictor has not learned yet, or nothing is left.
        MissingDependencyError: A section needs a library that is not installed.
        PluginError: The plugin of a section in `options` is broken; one that is not named is left out, with a warning.
    """
    registry = context.registry
    for name in (*options, *skip):
        registry.component(KIND, name, where="report")
    for name, value in options.items():
        if not isinstance(value, Mapping):
            raise ConfigError(f"{value!r}", where=name, allowed=f"options, as in {name}.key=value")
    sections: dict[str, Figures] = {}
    for name in registry.names(KIND):
        if name in skip:
            continue
        try:
            if name in options or _has_defaults(context, name):
                sections[name] = context.build(KIND, name, options.get(name, {}), where=name)
        except PluginError as error:  # of a plugin that is broken and was not asked for
            if name in options:
                raise
            warnings.warn(f"The section {name!r} is left out: {error}", PluginWarning, stacklevel=2)
    if context.adaptables:
        name = context.adaptables[0][0]
        hint = "Name the folder of one that has learned, such as those in adapters/ of a store"
        raise ConfigError(f"the predictor {name!r} has to learn first", where="report", hint=hint)
    if not sections:
        raise ConfigError("no section is left", where="report", hint="Name fewer with --skip")
    return sections


def _has_defaults(context: BuildContext, name: str) -> bool:
    try:
        check_options(context.registry, KIND, name, {}, where=name)
    except ConfigError:
        return False
    return True


def write_quality(
    synthetic: SampleSet,
    real: SampleSet,
    sections: Mapping[str, Figures],
    *,
    labels: LabelSpace,
    output: str | Path,
    title: str = "Quality",
    workers: int | None = 1,
    seed: int = 0,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Compare a synthetic set with a real one; write ``quality.html`` and ``quality.json``.

    Images are read a few at a time, first for their sizes, then for the figures, and once more for sections that ask a
    model; only numbers stay in memory. The figures depend on the two sets, the options and `seed`, not on the number of
    processes.

    Args:
        synthetic: What was generated.
        real: The user's own images.
        sections: As `build_sections` returns them.
        labels: Class table of both sets, for pictures.
        output: Folder to write to.
        title: Heading of the page.
        workers: Processes; None for as many as there are cores. A script that asks for more than one needs the
            customary ``if __name__ == "__main__":``.
        seed: Of the bootstrap.
        draws: Redrawn sets behind each interval.

    Returns:
        What ``quality.json`` holds, and ``page`` and ``figures``, the paths of both files.

    Raises:
        ConfigError: A set is empty, `workers` is below 1, or what groups the images finds nothing in any name.
        DataError, StoreError: Files cannot be used; all of them are named.
        SampleError: A section cannot use an image, or returns something else than it must.
    """
    workers = cores() if workers is None else workers
    if workers < 1:
        raise ConfigError(f"{workers} processes", where="workers", allowed="at least 1")
    sets = {"synthetic": synthetic, "real": real}
    for name, samples in sets.items():
        if not samples.keys:
            raise ConfigError("holds no image", where=f"the {name} set")
    _check_groups(list(sets.values()))
    with all_told(*(samples.problems for samples in sets.values())), Reader(sets, workers) as reader:
        sizes = {name: reader.sizes(name) for name in sets}
        for section in sections.values():
            section.prepare(**sizes)
        measured = {name: reader.measure(name, sections) for name in sets}
    done = [
        compare_section(name, section, {s: measured[s][name] for s in sets}, Rng(seed).child("report", name), draws)
        for name, section in sections.items()
    ]
    report = {
        "name": title,
        "seed": seed,
        "draws": draws,
        "level": LEVEL,
        **{name: _about(samples, sizes[name]) for name, samples in sets.items()},
        "flags": [{"section": s.name, **flag} for s in done for flag in s.report["flags"]],
        "sections": {section.name: section.report for section in done},
    }
    page = render_quality(report, done, sets, labels, nothing=nothing_found(report))
    folder = Path(output)
    make_folder(folder)
    write_whole(folder / PAGE, page.encode(), tag="report")
    write_whole(folder / FIGURES, (json_text(report, where=FIGURES, indent=2) + "\n").encode(), tag="report")
    sync_folder(folder)
    return {**report, "page": str(folder / PAGE), "figures": str(folder / FIGURES)}


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_groups(sets: Sequence[SampleSet]) -> None:
    """Refuse a pattern that groups nothing: the intervals would be too narrow, and nobody would know."""
    patterns = [s.by.pattern for s in sets if s.by is not None]
    if patterns and not any(s.by is not None and s.unmatched() < len(s.keys) for s in sets):
        names = ", ".join(repr(s.group(s.keys[0])) for s in sets)
        allowed = f"a regular expression that is found in names such as {names}"
        raise ConfigError(f"'{patterns[0]}' is found in no name", where="group", allowed=allowed)


def _about(samples: SampleSet, sizes: Sizes) -> dict[str, Any]:
    return {
        "images": len(samples.keys),
        "of": samples.total,
        "groups": len(set(samples.groups().tolist())),
        "by": None if samples.by is None else samples.by.pattern,
        "unmatched": samples.unmatched(),
        "sizes": {f"{width}x{height}": count for (height, width), count in sizes.most_common(5)},
    }


def compare_section(
    name: str, section: Figures, measured: Mapping[str, Measured], rng: Rng, draws: int = DRAWS
) -> Section:
    """Compare what one section measured of two sets.

    Args:
        name: The section's name.
        section: The section.
        measured: What it measured of ``synthetic`` and of ``real``.
        rng: Of the bootstrap.
        draws: Redrawn sets behind each interval.
    """
    statistics = list(section.statistics())
    estimates = {s: estimate(m, statistics, rng.child(s), draws=draws) for s, m in measured.items()}
    present = [i for i in range(len(statistics)) if any(np.isfinite(e.values[i]) for e in estimates.values())]
    rows = [_row(statistics[i], i, measured, estimates) for i in present]
    conclusion: Conclusion = section.conclude(measured["synthetic"], measured["real"], rng.child("conclude"))
    flags = [flag for row in rows if (flag := row.pop("flag")) is not None]
    flags += [{"harm": harm, "text": text} for harm, text in conclusion.flags]
    report = {
        "title": section.title,
        "about": section.about,
        "statistics": rows,
        "flags": flags,
        "notes": [*_withheld(rows), *conclusion.notes],
        "tables": [{"title": t.title, "header": t.header, "rows": t.rows} for t in conclusion.tables],
        **dict(conclusion.figures),
    }
    return Section(name, report, measured, [statistics[i] for i in present], section.ranked, conclusion.shows)


def _row(s: Statistic, i: int, measured: Mapping[str, Measured], estimates: Mapping[str, Estimates]) -> dict[str, Any]:
    """Return one statistic of both sets, their difference, and the flag it raises."""
    sides = {name: _side(m, s, estimates[name], i) for name, m in measured.items()}
    made, own = estimates["synthetic"], estimates["real"]
    value = float(made.values[i] - own.values[i])
    both = len(made.draws) and len(own.draws)
    interval = percentile_interval(made.draws[:, i] - own.draws[:, i]) if both else None
    difference = {"value": value if np.isfinite(value) else None, "interval": interval}
    few = 0 < min(side["groups"] for side in sides.values()) < FEWEST
    apart = None if few else _apart(sides["synthetic"]["interval"], sides["real"]["interval"])
    about = {"name": s.name, "title": s.title, "by": s.by, "worse": s.worse}
    row: dict[str, Any] = {**about, **sides, "difference": difference, "apart": apart is not None}
    row["withheld"] = bool(few and s.worse and s.harm)
    row["flag"] = {"harm": s.harm, "text": _flag_text(row)} if s.harm and apart and apart == s.worse else None
    return row


def _side(measured: Measured, statistic: Statistic, estimates: Estimates, i: int) -> dict[str, Any]:
    numbers = measured.numbers(statistic.value)
    known = numbers[np.isfinite(numbers)]
    value = float(estimates.values[i])
    side: dict[str, Any] = {
        "value": value if np.isfinite(value) else None,
        "interval": estimates.interval(i),
        "images": len(known),
        "groups": len(np.unique(measured.groups[np.isfinite(numbers)])),
        "without": len(numbers) - len(known),
    }
    if statistic.per is None and len(known):
        low, middle, high = (float(v) for v in np.percentile(known, [5, 50, 95]))
        side |= {"sd": float(known.std(ddof=min(1, len(known) - 1))), "p5": low, "median": middle, "p95": high}
    return side


def _apart(made: tuple[float, float] | None, own: tuple[float, float] | None) -> str | None:
    """Return on which side of the real interval the synthetic one lies, ``lower`` or ``higher``; None if they touch."""
    for low, high, side in ((made, own, "lower"), (own, made, "higher")):
        if low and high and low[1] < high[0] and not math.isclose(low[1], high[0], rel_tol=SAME):
            return side
    return None


def _flag_text(row: Mapping[str, Any]) -> str:
    (made, its), (own, theirs) = (told_row(row)[name] for name in ("synthetic", "real"))
    return f"{row['title']}: {made} ({its}), real images {own} ({theirs})"


def _withheld(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say which figures could raise no flag, since too few images have them."""
    titles: dict[tuple[int, int], list[str]] = {}
    for row in rows:
        if row["withheld"]:
            counts = (row["synthetic"]["groups"], row["real"]["groups"])
            titles.setdefault(counts, []).append(row["title"] + (f" ({row['by']})" if row["by"] else ""))
    for (made, own), names in titles.items():
        yield (
            f"no flag is raised by {'; '.join(names)}: of {made} synthetic and {own} real images (images of one "
            f"condition or group are one here), and intervals of fewer than {FEWEST} are too narrow"
        )


def quality_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures of a quality report as lines for a terminal."""
    made, real = report["synthetic"], report["real"]
    counts = (f"{s['images']} {what}{told_groups(s)}" for s, what in ((made, "synthetic images"), (real, "real ones")))
    yield f"{report['name']}: {' against '.join(counts)}"
    yield f"intervals: {report['level']:.0%}, {report['draws']} redrawn sets"
    for section in report["sections"].values():
        yield ""
        yield from _section_lines(section)
    yield ""
    yield from (f"{flag['harm'].upper()} ({flag['section']}): {flag['text']}" for flag in report["flags"])
    if not report["flags"]:
        yield nothing_found(report)


def nothing_found(report: Mapping[str, Any]) -> str:
    """Return the sentence in place of flags."""
    if any(row["withheld"] for section in report["sections"].values() for row in section["statistics"]):
        return "No flag, but some figures are of too few images to tell; see the notes."
    return "Nothing found in which the synthetic images look worse than the real ones."


def _section_lines(section: Mapping[str, Any]) -> Iterator[str]:
    yield section["title"]
    rows = [row for row in section["statistics"] if row["by"] is None]
    width = max([len(row["title"]) for row in rows], default=0)
    if rows:
        yield f"  {'':<{width}}  {'synthetic':<28}  real"
    for row in rows:
        texts = told_row(row, 4)
        yield f"  {row['title']:<{width}}  {_figure(*texts['synthetic']):<28}  {_figure(*texts['real'])}"
    by_class: dict[str, dict[str, Any]] = {}
    for row in section["statistics"]:
        if row["by"] is not None:
            by_class.setdefault(row["by"], {})[row["title"]] = tuple(row[s]["value"] for s in ("synthetic", "real"))
    titles = list(dict.fromkeys(title for found in by_class.values() for title in found))
    cells = [[name, *(_pair(found.get(title)) for title in titles)] for name, found in by_class.items()]
    if cells:
        yield from _aligned("By class, synthetic / real", [["", *titles], *cells])
    for table in section["tables"]:
        yield from _aligned(
            table["title"], [[_cell(cell) for cell in row] for row in (table["header"], *table["rows"])]
        )
    yield from (f"  note: {note}" for note in section["notes"])


def _aligned(title: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    yield f"  {title}"
    yield from ("    " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _pair(values: tuple[float | None, float | None] | None) -> str:
    return "-" if values is None else " / ".join(text or "-" for text in told(values))


def _cell(value: str | float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _figure(value: str, interval: str | None) -> str:
    return value if interval is None else f"{value} [{interval}]"
