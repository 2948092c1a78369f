"""A recipe from beginning to end. Every stage finds out by itself what is left to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from genaug.engine.adapt import adapt_all, adapter_place
from genaug.engine.device import resolve_device
from genaug.engine.generate import disk_bytes, generate_all
from genaug.engine.judge import check_filters, judge_all
from genaug.engine.plan import make_plan
from genaug.errors import ConfigError, StoreError, did_you_mean
from genaug.fit import require_fit, require_judges
from genaug.interfaces import Filter, Generator
from genaug.models import require_models
from genaug.recipe import BuildContext, Recipe
from genaug.sources import checked
from genaug.sources.base import Source
from genaug.store import SampleStore, Shard, StoreWriter, lock, open_writer
from genaug.store.files import DATASET
from genaug.types import Sample

#: In the order they run.
STAGES = ("adapt", "generate", "filter", "report")

Report = dict[str, Any]


@dataclass(slots=True)
class _Parts:
    """What the stages of one run share, built once."""

    recipe: Recipe
    context: BuildContext
    source: Source
    conditions: Source
    generator: Generator | None
    filters: list[tuple[str, Filter]]
    writer: StoreWriter
    redo_filters: bool


def run(
    recipe: Recipe,
    *,
    stages: Sequence[str] = STAGES,
    device: str = "auto",
    shard: Shard | None = None,
    repair: bool = False,
    redo_filters: bool = False,
) -> Report:
    """Adapt if needed, generate what is missing, filter what is not judged, report.

    Killed at any moment and called again, it ends with the bytes of an uninterrupted run.

    Args:
        recipe: What to do, and the folder.
        stages: Some of `STAGES`; they run in their own order. A stage whose predecessor is not done raises.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:<number>`` or ``mps``.
        shard: Which part of the samples this process makes. The last shard to finish merges; filter and report run
            in a shard that finds the store complete, and are left out in the others.
        repair: Make damaged samples again.
        redo_filters: Judge again where a filter's options changed.

    Returns:
        ``recipe``, ``output``, ``device``, ``shard``, ``complete`` (False while other shards work or samples failed),
        ``failed`` (number of samples) and ``stages``: the report of every stage that ran.

    Raises:
        DataError: The data has problems; nothing was written.
        StoreError: The folder cannot be written, trusted or is in use; finished work stays.
        AdapterError: Not adapted, and ``adapt`` is not among the stages.
        ConfigError: An unknown stage or device; or a model that the recipe names is not there, or its components do
            not fit its data or one another, and nothing was written.
    """
    wanted = _ordered(stages)
    device = resolve_device(device)
    making, judging = {"adapt", "generate"} & set(wanted), {"adapt", "filter"} & set(wanted)
    context = recipe.context(device=device)
    users = [*(["generator"] if making else []), *(["filters"] if judging else [])]
    source, conditions = checked_sources(recipe, context, users)
    if "filter" in wanted:
        check_filters(recipe, redo=redo_filters)
    generator = recipe.generator(context) if making else None
    filters = recipe.filters(context) if judging else []
    require_judges(recipe, filters, conditions=conditions)
    report: Report = {
        "recipe": recipe.config.name,
        "output": str(recipe.output),
        "device": device,
        "shard": str(shard) if shard else None,
        "complete": True,
        "failed": 0,
        "stages": {},
    }
    with ExitStack() as stack:
        writer = stack.enter_context(open_writer(recipe, shard=shard, repair=repair))
        parts = _Parts(recipe, context, source, conditions, generator, filters, writer, redo_filters)
        _run_stages(parts, wanted, report, stack)
    return report


def _run_stages(parts: _Parts, wanted: Sequence[str], report: Report, stack: ExitStack) -> None:
    """Run stages in order and fill `report`; stop after ``generate`` if samples are missing."""
    recipe, writer, train = parts.recipe, parts.writer, "adapt" in wanted
    learned = adapt_all(recipe, parts.context, parts.generator, writer, parts.source, train=train)
    leading = False
    for stage in wanted:
        if stage in ("filter", "report") and not leading:
            leading = _lead(writer, stack)
            if not leading:
                return
        done = learned if stage == "adapt" else _STAGES[stage](parts)
        report["stages"][stage] = done
        recipe.registry.stage_finished(stage, done)
        if stage == "generate":
            report["failed"], report["complete"] = done["failed"], done["complete"]
            if not done["complete"]:
                return


def _lead(writer: StoreWriter, stack: ExitStack) -> bool:
    """Return True if this process filters and reports; of several shards that end together, one does."""
    try:
        stack.enter_context(writer.exclusive(lock.FILTER, wait=False))
    except StoreError:
        return False
    return True


def _ordered(stages: Sequence[str]) -> list[str]:
    for stage in stages:
        if stage not in STAGES:
            raise ConfigError(f"no stage is called {stage!r}", where="stages", hint=did_you_mean(stage, STAGES))
    return [stage for stage in STAGES if stage in stages]


def checked_sources(
    recipe: Recipe, context: BuildContext, users: Sequence[str] = ("generator", "filters")
) -> tuple[Source, Source]:
    """Look for models, build the sources of labelled samples and of conditions, read all of both, see what fits.

    Args:
        recipe: What to do.
        context: Where the sources are built.
        users: Keys of the recipe whose components will be used, beside the sources: their models must be there.

    Raises:
        ConfigError: A model cannot be used, or a component cannot use the data; all such are listed.
        DataError: There are problems; all of one source are listed.
    """
    require_models(recipe, ["data", "conditions", *users])
    source = checked(recipe.source(context))
    conditions = recipe.conditions(context)
    if conditions is not source:
        checked(conditions, where="conditions")
    if users:
        require_fit(recipe, data=source, conditions=conditions)
    return source, conditions


def _generate(parts: _Parts) -> Report:
    assert parts.generator is not None  # built for this stage
    return generate_all(parts.recipe, parts.generator, parts.conditions, parts.writer, device=parts.context.device)


def _filter(parts: _Parts) -> Report:
    return judge_all(
        parts.recipe,
        parts.filters,
        parts.source,
        parts.writer,
        device=parts.context.device,
        redo=parts.redo_filters,
    )


def _report(parts: _Parts) -> Report:
    from genaug.report import write_report

    report: Report = write_report(parts.writer.store, parts.recipe)
    return report


_STAGES: dict[str, Callable[[_Parts], Report]] = {"generate": _generate, "filter": _filter, "report": _report}


def preview(recipe: Recipe, *, device: str = "auto", shard: Shard | None = None) -> Report:
    """Say what `run` would do, without writing anything or loading a model.

    The components' libraries are imported, since they decide which samples share a batch. Data is read and checked.

    Returns:
        ``conditions``, ``samples_per_condition``, ``samples``, ``batch_size``, ``batches``, ``sizes`` (width x height
        of the samples -> how many), ``shard``, ``shard_samples``, ``done`` (of all samples), ``bytes`` (upper bound on
        disk), ``to_adapt``, ``filters``, ``prompts`` (condition id -> text, of conditions that are prompts).
    """
    context = recipe.context(device=resolve_device(device))
    source, conditions = checked_sources(recipe, context)
    del source
    generator = recipe.generator(context)
    require_judges(recipe, recipe.filters(context), conditions=conditions)
    prompts: dict[str, str] = {}

    def note_prompt(condition: Sample) -> None:
        if condition.prompt is not None:
            prompts[condition.id] = condition.prompt.text

    plan = make_plan(conditions, generator, recipe.rng, visit=note_prompt, outlines=True)
    mine = [b for number, b in enumerate(plan.batches) if shard is None or shard.has(number)]
    begun = (recipe.output / DATASET).exists()
    to_adapt = []
    for name, component in context.adaptables:
        if not component.adapted(recipe.output / adapter_place(name, component, generator)):
            to_adapt.append(name)
    return {
        "recipe": recipe.config.name,
        "output": str(recipe.output),
        "conditions": len(plan.ids),
        "samples_per_condition": plan.per_condition,
        "samples": len(plan),
        "batch_size": generator.batch_size,
        "batches": len(plan.batches),
        "sizes": {f"{w}x{h}": count for (h, w), count in plan.sizes.items()},
        "shard": str(shard) if shard else None,
        "shard_samples": sum(map(len, mine)),
        "done": len(SampleStore.open(recipe.output).index) if begun else 0,
        "bytes": disk_bytes(plan.pixels, len(plan)),
        "to_adapt": to_adapt,
        "filters": [name for name, _ in recipe.filters(context)],
        "prompts": prompts,
    }
