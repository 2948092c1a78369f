"""Writes ``report/``: ``index.html``, one file with everything in it, and ``report.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from genaug.errors import ConfigError, GenaugError
from genaug.recipe import Recipe
from genaug.report.classes import class_table
from genaug.report.collect import Collected, collect
from genaug.report.gallery import percent, render
from genaug.report.sample_sets import all_told
from genaug.report.training import Training, find_trainings
from genaug.sources.base import Source
from genaug.store.files import json_text, make_folder, sync_folder, write_whole
from genaug.store.store import SampleStore
from genaug.store.views import NOTHING_LEFT
from genaug.types import Image

PAGE, FIGURES = "index.html", "report.json"
LIMIT = 24


def write_report(
    store: SampleStore,
    recipe: Recipe | None = None,
    *,
    output: str | Path | None = None,
    limit: int = LIMIT,
    title: str | None = None,
) -> dict[str, Any]:
    """Write the gallery and the figures of a store; an unfinished store is reported as far as it is.

    The page is one HTML file that needs no network and nothing beside it: a few megabytes at most, however large
    the store.

    Args:
        store: The store.
        recipe: Its recipe, to show the real image beside each generated one where the masks are the labelled data's.
        output: Folder to write to; ``report`` inside the store by default.
        limit: Conditions shown on the page, at least 1. Of more, those that lose most and least to the filters and a
            cross-section are shown.
        title: Heading; the recipe's name by default.

    Returns:
        What ``report.json`` holds, and ``page`` and ``figures``, the paths of both files.

    Raises:
        StoreError: Files of the store are missing or damaged, all of which are named, or the folder cannot be written.
        ConfigError: `limit` is below 1.
    """
    if limit < 1:
        raise ConfigError(f"limit {limit}", where="report", allowed="at least 1 condition")
    folder = Path(output) if output is not None else store.path / "report"
    with all_told(store.verify):
        found = collect(store)
        classes, looked_at = class_table(store, found.groups)
        trainings = find_trainings(store.path)
        report = _figures(store, found, title)
        report |= {
            "classes": classes,
            "conditions_in_class_table": looked_at,
            "trainings": [_training(t) for t in trainings],
        }
        page = render(store, report, found.groups, trainings, limit=limit, real=_real_images(recipe))
    make_folder(folder)
    write_whole(folder / PAGE, page.encode(), tag="report")
    write_whole(folder / FIGURES, (json_text(report, where=FIGURES, indent=2) + "\n").encode(), tag="report")
    sync_folder(folder)
    return {**report, "page": str(folder / PAGE), "figures": str(folder / FIGURES)}


def _figures(store: SampleStore, found: Collected, title: str | None) -> dict[str, Any]:
    """Return what is counted of a store, without its classes and trainings."""
    return {
        "name": title or str(store.info["name"]),
        "complete": store.complete,
        "samples": {
            "planned": store.planned,
            "made": found.made,
            "refused": len(store.index.refused),
            "dropped": found.dropped,
            "nothing_left": found.empty,
            "kept": found.made - found.dropped - found.empty,
        },
        "conditions": len(found.groups),
        "samples_per_condition": store.info["samples_per_condition"],
        "generator": str(store.info["recipe"]["generator"]["use"]),
        "seed": store.info["recipe"]["seed"],
        "filters": [figures.to_dict() for figures in found.filters],
        "refused": found.refused.table(),
        "notes": _notes(store, found.pending),
    }


def _training(training: Training) -> dict[str, Any]:
    curve = training.curve
    record: dict[str, Any] = {"name": training.name, "previews": len(training.previews)}
    return record if curve is None else {**record, "steps": curve.steps, "last_loss": curve.last}


def _notes(store: SampleStore, pending: bool) -> list[str]:
    notes = []
    if not store.complete:
        planned = "an unknown number" if store.planned is None else store.planned
        notes.append(f"{len(store.index)} of {planned} samples are made: 'genaug run' goes on.")
    if pending:
        notes.append("Not every filter has judged every sample: 'genaug filter' goes on.")
    return notes


def _real_images(recipe: Recipe | None) -> Callable[[str], Image | None]:
    """Return condition id -> real image, for conditions that are the masks of the labelled data."""
    if recipe is None or recipe.config.conditions is not None:
        return lambda _: None
    return partial(_real_image, recipe.source())


def _real_image(source: Source, condition_id: str) -> Image | None:
    try:
        return source.load(condition_id).image
    except GenaugError:  # the data may have moved since; the store is complete without it
        return None


def summary_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures of a report as lines for a terminal."""
    samples = report["samples"]
    yield (
        f"{report['name']}: {report['conditions']} conditions, {samples['made']} samples made, "
        f"{samples['refused']} refused, {samples['dropped']} dropped, {samples['kept']} kept"
    )
    if samples["nothing_left"]:
        yield f"  left out though no filter drops them: {samples['nothing_left']} x {NOTHING_LEFT}"
    if report["filters"]:
        yield ""
        yield f"{'filter':<20}{'judged':>8}{'dropped':>9}{'ignored':>9}  mean scores"
        for row in report["filters"]:
            scores = "  ".join(f"{name} {score['mean']:.3g}" for name, score in row["scores"].items())
            ignored = _percent(row["ignored_share"])
            yield f"{row['name']:<20}{row['judged']:>8}{row['dropped']:>9}{ignored:>9}  {scores}".rstrip()
        reasons = [(f["name"], r) for f in report["filters"] for r in f["reasons"]]
        yield from (f"  dropped by {name}: {r['count']} x {r['reason']}" for name, r in reasons)
    yield from (f"  refused: {r['count']} x {r['reason']}" for r in report["refused"])
    yield ""
    width = max([8, *(len(row["name"]) for row in report["classes"])]) + 2
    yield f"{'id':>4}  {'class':<{width}}{'conditions':>10}{'pixels':>9}{'left to train on':>18}"
    for row in report["classes"]:
        line = f"{row['id']:>4}  {row['name']:<{width}}{row['conditions']:>10}{_percent(row['share']):>9}"
        yield f"{line}{_percent(row['training']):>18}"
    yield from (f"note: {note}" for note in report["notes"])


def _percent(value: float | None) -> str:
    """Return `percent` in ASCII: not every terminal can write narrow spaces."""
    return percent(value).replace("\u202f", " ").replace("–", "-")
