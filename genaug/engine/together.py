"""Stage ``adapt`` in several processes at once: ``accelerate launch -m genaug adapt RECIPE``."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from genaug.engine.adapt import adapter_place, adapting_stream, single_process
from genaug.engine.device import resolve_device
from genaug.engine.labelled import LabelledSamples, check_note, note, renew_note
from genaug.engine.run import Report, checked_sources
from genaug.recipe import Recipe
from genaug.store import open_writer
from genaug.store.files import make_folder, system_errors


def launched_processes() -> int:
    """Return how many processes a launcher (``accelerate launch``, ``torchrun``) started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def adapt_together(recipe: Recipe, *, device: str = "auto") -> Report:
    """Adapt in all processes that a launcher started; they take the steps that one process would take.

    A component with a true attribute ``adapts_in_parallel`` spreads every step over the processes; any other learns in
    the first process alone, which also is the only one that holds the store.

    Args:
        recipe: What to do.
        device: ``auto`` gives every process its own CUDA device.

    Returns:
        The report of `genaug.engine.run` for the stage ``adapt``: what this process took part in.

    Raises:
        DataError, StoreError, AdapterError, ConfigError: As `genaug.engine.run`.
    """
    device, first = resolve_device(device), os.environ["RANK"] == "0"
    context = recipe.context(device=device)
    source, _ = checked_sources(recipe, context)
    generator = recipe.generator(context)
    recipe.filters(context)  # their predictors may have to learn too
    learned: dict[str, Any] = {}
    samples = LabelledSamples(source)
    with open_writer(recipe) if first else contextlib.nullcontext():
        for name, component in context.adaptables:
            place = adapter_place(name, component, generator)
            folder = recipe.output / place
            parallel = bool(getattr(component, "adapts_in_parallel", False))
            check_note(folder, samples, name=name)
            if component.adapted(folder):
                learned[place] = {"reused": True}
                if first:
                    renew_note(folder, samples, tag="all")
            elif parallel or first:
                if first:
                    make_folder(folder)
                    note(folder, samples, tag="all")
                refusals = system_errors("write what is learned", folder)
                with refusals, contextlib.nullcontext() if parallel else single_process():
                    record = component.adapt(
                        samples, folder, labels=recipe.labels, rng=adapting_stream(recipe, name, place)
                    )
                learned[place] = {"reused": False, **record}
    if first:
        recipe.registry.stage_finished("adapt", learned)
    return {"recipe": recipe.config.name, "output": str(recipe.output), "device": device, "stages": {"adapt": learned}}
