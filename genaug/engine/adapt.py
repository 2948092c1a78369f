"""Stage ``adapt``: whatever learns from the labelled samples does so once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from genaug.engine.labelled import LabelledSamples, check_note, note, renew_note
from genaug.errors import AdapterError
from genaug.interfaces import Generator
from genaug.recipe import BuildContext, Recipe
from genaug.rng import Rng
from genaug.sources.base import Source
from genaug.store import lock
from genaug.store.files import make_folder, system_errors
from genaug.store.writer import StoreWriter


def adapter_place(name: str, component: object, generator: object) -> str:
    """Return the folder inside a store where a component keeps what it learned."""
    return "adapter" if component is generator else f"adapters/{name}"


def adapt_all(
    recipe: Recipe,
    context: BuildContext,
    generator: Generator | None,
    writer: StoreWriter,
    source: Source,
    *,
    train: bool,
) -> dict[str, Any]:
    """Make sure that everything built in `context` is adapted, and loads what it learned.

    The generator's result lies in ``adapter/`` of the store, that of any other component in ``adapters/<name>/``.

    Args:
        recipe: Source of randomness and class table.
        context: Holds what was built.
        generator: The recipe's generator, if it was built.
        writer: The open store; of several shards one adapts while the others wait.
        source: The labelled samples.
        train: Adapt what is not adapted; False raises instead.

    Returns:
        Folder -> the component's report, with ``reused`` true if nothing had to be learned.

    Raises:
        AdapterError: Something is not adapted, and not `train`; it was adapted on other labelled samples; or what it
            learned is damaged.
        StoreError: The operating system refused; finished work stays.
    """
    report: dict[str, Any] = {}
    samples = LabelledSamples(source)
    for name, component in context.adaptables:
        place = adapter_place(name, component, generator)
        folder = writer.path / place
        record: Mapping[str, Any] = {"reused": True}
        check_note(folder, samples, name=name)
        if not component.adapted(folder):
            if not train:
                raise AdapterError(
                    f"{name} has not learned from the labelled samples yet",
                    where=str(folder),
                    hint="Run 'genaug adapt' (or 'genaug run') with this recipe first",
                )
            with writer.exclusive(lock.ADAPT):
                if not component.adapted(folder):  # else another shard did it while this one waited
                    make_folder(folder)
                    note(folder, samples, tag=writer.tag)
                    rng = adapting_stream(recipe, name, place)
                    alone = single_process() if writer.shard else contextlib.nullcontext()
                    with alone, system_errors("write what is learned", folder):
                        learned = component.adapt(samples, folder, labels=recipe.labels, rng=rng)
                    record = {"reused": False, **learned}
        with writer.exclusive(lock.ADAPT):
            renew_note(folder, samples, tag=writer.tag)
        report[place] = dict(record)
        component.load_adapted(folder)
    return report


@contextmanager
def single_process() -> Iterator[None]:
    """Hide a launcher's variables: one shard adapts, and must not wait for the others in a process group."""
    names = [n for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE") if n in os.environ]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def adapting_stream(recipe: Recipe, name: str, place: str) -> Rng:
    """Return the random stream of one adaptation.

    `name` holds a digest of all options; the generator's stream must not move with its sampler's.
    """
    return recipe.rng.child("adapt", "generator" if place == "adapter" else name)
