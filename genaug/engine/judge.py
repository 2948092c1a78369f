"""Stage ``filter``: every filter's verdict on every sample of a finished store."""

from __future__ import annotations

from typing import Any

from genaug.engine.progress import bar
from genaug.errors import StoreError
from genaug.interfaces import Filter, FilterContext
from genaug.recipe import Recipe
from genaug.sources.base import Source
from genaug.store import lock
from genaug.store.verdicts import FilterWriter, check_filter
from genaug.store.views import write_metadata
from genaug.store.writer import StoreWriter


def filter_specs(recipe: Recipe) -> list[tuple[str, dict[str, Any]]]:
    """Return ``(name, resolved options)`` of the recipe's filters, in order."""
    parts = recipe.resolved()["filters"]
    return [(config.label, part) for config, part in zip(recipe.config.filters, parts, strict=True)]


def check_filters(recipe: Recipe, *, redo: bool) -> None:
    """Find filters whose options changed before hours are spent; see `genaug.store.verdicts.check_filter`."""
    for name, spec in filter_specs(recipe):
        check_filter(recipe.output, name, spec, redo=redo)


def judge_all(
    recipe: Recipe,
    filters: list[tuple[str, Filter]],
    source: Source,
    writer: StoreWriter,
    *,
    device: str,
    redo: bool = False,
) -> dict[str, Any]:
    """Ask every filter about every group it has not judged yet. Each judges the original samples.

    Args:
        recipe: Options of the filters and class table.
        filters: As built by `Recipe.filters`; one is prepared only if it has something to judge.
        source: The labelled real samples.
        writer: The open store.
        device: Torch device string.
        redo: Judge again where a filter's options changed.

    Returns:
        ``samples``, ``kept`` (samples to train on), ``nothing_left`` (samples that every filter keeps but that have no
        labelled pixel left), and for each filter ``judged`` (now), ``dropped`` and ``ignored_fraction`` (mean over
        all samples).

    Raises:
        StoreError: The store is not complete, a sample is damaged, or a filter's options changed (not with `redo`).
    """
    store = writer.store
    if not store.complete:
        raise StoreError(
            f"{len(store.index)} of {store.planned or 'an unknown number of'} samples are made",
            where=str(store.path),
            allowed="filtering a finished store",
            hint="Run 'genaug generate' (or 'genaug run') with this recipe first",
        )
    context = FilterContext(
        recipe.labels, lambda: iter(source), store.conditions, int(store.info["samples_per_condition"]), device
    )
    report: dict[str, Any] = {}
    kept = dict.fromkeys(store.keys(), True)
    for (name, spec), (_, judge) in zip(filter_specs(recipe), filters, strict=True):
        results = FilterWriter(store, name, spec, redo=redo)
        judged = _judge(name, judge, results, context)
        results.finish()
        dropped, ignored = 0, 0.0
        for row in results.rows():
            dropped += not row["keep"]
            ignored += row["ignored"]
            kept[row["key"]] &= row["keep"]
        mean = ignored / len(kept) if kept else 0.0
        report[name] = {"judged": judged, "dropped": dropped, "ignored_fraction": mean}
    with writer.exclusive(lock.MERGE):
        empty = len(write_metadata(store))
    return {"samples": len(kept), "kept": sum(kept.values()) - empty, "nothing_left": empty, "filters": report}


def _judge(name: str, judge: Filter, results: FilterWriter, context: FilterContext) -> int:
    """Judge what is pending; return the number of samples judged."""
    store = results.store
    groups = list(store.group_keys())
    todo = [keys for keys in groups if results.pending(store.rows_of(keys))]
    if not todo:
        return 0
    judge.prepare(context)
    count = 0
    for keys in bar(todo, f"filter {name}"):
        rows = store.rows_of(keys)
        group = store.group(rows)
        results.add(rows, group, judge.judge(group, context.labels))
        count += len(rows)
    return count
