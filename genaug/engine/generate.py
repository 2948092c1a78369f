"""Stage ``generate``: every planned sample that the store lacks."""

from __future__ import annotations

import logging
import shutil
from itertools import compress
from typing import Any

from genaug.engine.plan import Plan, make_plan, seed_of
from genaug.engine.progress import bar, counter
from genaug.errors import DataError, StoreError
from genaug.interfaces import Generator
from genaug.recipe import Recipe
from genaug.sources.base import Source
from genaug.store.files import condition_hash
from genaug.store.writer import StoreWriter
from genaug.types import Draw, Sample

log = logging.getLogger("genaug")

#: A run gives up after this many batches in a row failed: the cause is not in the samples.
FAILURES_IN_A_ROW = 3


def generate_all(
    recipe: Recipe, generator: Generator, conditions: Source, writer: StoreWriter, *, device: str
) -> dict[str, Any]:
    """Make what is missing of this shard, then merge if every shard is done.

    A batch that fails is reported and left out; the next run tries it again. If the first batch of a run fails, or
    `FAILURES_IN_A_ROW` in a row, the error is raised.

    Args:
        recipe: Source of randomness and class table.
        generator: Built and adapted, not prepared: it is prepared only if there is something to make.
        conditions: What to make samples for.
        writer: The open store.
        device: Torch device string.

    Returns:
        Counts of this shard: ``planned``, ``made`` (images written now), ``reused`` (there before), ``refused`` (now or
        before, by the generator), ``failed``; ``failures`` in detail; ``complete``: every shard is done.

    Raises:
        StoreError: The store is damaged or does not fit the data, or a file cannot be written. Finished samples stay.
    """
    plan = make_plan(conditions, generator, recipe.rng, visit=writer.put_condition)
    mine = [b for number, b in enumerate(plan.batches) if writer.shard is None or writer.shard.has(number)]
    missing = missing_draws(recipe, plan, mine, writer)
    writer.plan(len(plan), plan.per_condition, missing=len(missing))
    planned = sum(map(len, mine))
    failed: list[dict[str, Any]] = []
    if missing:
        _warn_if_disk_is_small(plan, len(missing), writer)
        draws = Draws(recipe, plan, conditions)
        failed = _make(recipe, generator, draws, writer, mine, missing, device=device)
    # Failures leave holes, so nothing is complete; the store stays as it is until a later run fills them.
    complete = not failed and writer.finish(plan.keys())
    failures = sum(len(f["samples"]) for f in failed)
    refused = [n for batch in mine for n in batch if plan.key(n) in writer.store.index.refused]
    return {
        "conditions": len(plan.ids),
        "planned": planned,
        "made": len(missing) - failures - len(missing.intersection(refused)),
        "reused": planned - len(missing),
        "refused": len(refused),
        "failed": failures,
        "failures": failed,
        "complete": complete,
    }


def missing_draws(recipe: Recipe, plan: Plan, mine: list[list[int]], writer: StoreWriter) -> set[int]:
    """Compare what the store holds with the plan, file by file; return the draws to make.

    Raises:
        StoreError: Files are damaged, or samples were made from other masks or prompts.
    """
    missing: set[int] = set()
    numbers = [n for batch in mine for n in batch]
    for number in bar(numbers, "checking the store") if len(writer.store.index) else numbers:
        position, k = divmod(number, plan.per_condition)
        seed = seed_of(recipe.rng, plan.ids[position], k)
        if not writer.has(plan.key(number), seed, plan.hashes[position]):
            missing.add(number)
    if writer.damaged:
        count = len(writer.damaged)
        raise StoreError(
            f"{count} sample{'s are' if count > 1 else ' is'} damaged, first: {writer.damaged[0].found}",
            where=writer.damaged[0].where,
            hint="Run 'genaug generate' with --repair to make damaged samples again",
        )
    return missing


def disk_bytes(pixels: float, samples: int) -> int:
    """Return an upper bound of what samples take on disk: PNGs of noise with their masks, headers and rows."""
    return int(3.3 * pixels + 3000 * samples)


def _warn_if_disk_is_small(plan: Plan, missing: int, writer: StoreWriter) -> None:
    needed = disk_bytes(plan.pixels / max(1, len(plan)) * missing, missing)
    free = shutil.disk_usage(writer.path).free
    if needed > free:
        log.warning(
            "%s: %d samples may need up to %.0f MB, %.0f MB are free; a full disk stops the run and loses nothing",
            writer.path,
            missing,
            needed / 1e6,
            free / 1e6,
        )


def _make(
    recipe: Recipe,
    generator: Generator,
    draws: Draws,
    writer: StoreWriter,
    batches: list[list[int]],
    missing: set[int],
    *,
    device: str,
) -> list[dict[str, Any]]:
    """Make every batch that lacks a member and write the lacking members; return what failed."""
    generator.prepare(recipe.labels, device=device)
    provenance = generator.describe()
    failed: list[dict[str, Any]] = []
    in_a_row, made = 0, 0
    with counter("generating", total=sum(map(len, batches)), done=sum(map(len, batches)) - len(missing)) as progress:
        for numbers in batches:
            wanted = [n in missing for n in numbers]
            if not any(wanted):
                continue
            batch = [draws[n] for n in numbers]
            try:
                results = generator.generate(batch, ignore_index=recipe.labels.ignore_index)
            except Exception as error:
                in_a_row += 1
                if made == 0 or in_a_row >= FAILURES_IN_A_ROW:
                    raise
                log.exception("samples %s failed", ", ".join(d.key for d in batch))
                keys = [d.key for d, lacking in zip(batch, wanted, strict=True) if lacking]
                failed.append({"samples": keys, "error": f"{type(error).__name__}: {error}"})
                continue
            in_a_row = 0
            writer.add(list(compress(batch, wanted)), list(compress(results, wanted)), provenance)
            made += sum(wanted)
            progress.update(sum(wanted))
    return failed


class Draws:
    """The draws of a plan, built when asked for; the condition read last is kept, since neighbours share it.

    Args:
        recipe: Root of the seeds.
        plan: What is asked for.
        conditions: Where conditions are read from.
    """

    def __init__(self, recipe: Recipe, plan: Plan, conditions: Source) -> None:
        self.recipe, self.plan, self.conditions = recipe, plan, conditions
        self._last: Sample | None = None

    def __getitem__(self, number: int) -> Draw:
        position, k = divmod(number, self.plan.per_condition)
        name = self.plan.ids[position]
        if self._last is None or self._last.id != name:
            self._last = self.conditions.load(name)
            if condition_hash(self._last) != self.plan.hashes[position]:
                raise DataError(f"the condition {name} changed during the run", where="conditions", hint="Start again")
        return Draw(self._last, k, seed_of(self.recipe.rng, name, k))
